"""What is installed where: declared dependencies, tested versions, the imports' direction, the two commands."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.mats_core.test_packages import traps

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGES = ("mats_core", "pipelines", "jobs")
PYTHONS = ("3.10", "3.11", "3.12")
# Imports whose distribution has another name.
DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
}
# Imported only where it is installed; asking for it without says what to do.
GUARDED = {"gcsfs", "adlfs", "wandb", "mlflow"}


def project() -> dict:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]


def requirements(*extras: str) -> list[Requirement]:
    facts = project()
    lines = [*facts["dependencies"], *(line for extra in extras for line in facts["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """(path, tree) of every module of the three packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """First names of all absolute imports, wherever in the module they stand."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_everything_imported_is_declared() -> None:
    declared = {canonicalize_name(r.name) for r in requirements("msclap", "evaluate", "lowbit", "serve")}
    known = set(sys.stdlib_module_names) | set(PACKAGES) | {"__future__"} | GUARDED
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in modules()
        for name in imported(tree) - known
        if canonicalize_name(DISTRIBUTIONS.get(name, name)) not in declared
    }
    assert undeclared == set()


def test_constraints_are_exact_and_portable() -> None:
    for line in constraints():
        assert [s.operator for s in line.specifier] == ["=="], str(line)
        assert line.url is None, str(line)
        assert "+" not in str(line.specifier), f"{line}: a local version tag exists on one machine only"


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_fit_the_bounds_on_every_python(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    exact: dict[str, str] = {}
    for line in constraints():
        if line.marker is None or line.marker.evaluate(environment):
            name = canonicalize_name(line.name)
            assert name not in exact, f"{name} twice on Python {python}"
            exact[name] = next(iter(line.specifier)).version
    for wanted in requirements("msclap", "evaluate", "serve", "dev"):
        name = canonicalize_name(wanted.name)
        assert name in exact, f"constraints.txt has no version of {name}"
        assert wanted.specifier.contains(exact[name]), f"{wanted} excludes the tested {exact[name]}"


def test_bounds_keep_out_what_does_not_work_together() -> None:
    with_msclap = requirements("msclap")
    for name, bad in (("numpy", "2.0.0"), ("pyarrow", "26.0.0"), ("transformers", "5.0.0")):
        assert not all(r.specifier.contains(bad) for r in with_msclap if r.name == name), (name, bad)
    for name, good in (("numpy", "2.4.0"), ("pyarrow", "26.0.1"), ("transformers", "5.0.0")):
        assert all(r.specifier.contains(good) for r in requirements() if r.name == name), (name, good)


def test_the_extra_of_the_hub_goes_with_both_transformers() -> None:
    """datasets 5 needs huggingface-hub 1.31 or newer, transformers 4.57 one below 1."""
    (datasets,) = (each for each in requirements("hub") if each.name == "datasets")
    assert not any(datasets.specifier.contains(bad) for bad in ("3.6.0", "5.0.0", "5.2.0"))
    assert all(datasets.specifier.contains(good) for good in ("4.0.0", "4.8.5"))


def test_the_command_is_there() -> None:
    assert project()["scripts"] == {"mats": "mats_core.packages:main"}
    assert callable(importlib.import_module("mats_core.packages").main)


def test_the_version_is_the_same_everywhere() -> None:
    assert importlib.import_module("mats_core").__version__ == project()["version"]
    assert metadata.version(project()["name"]) == project()["version"]


def test_package_data_is_where_it_is_looked_for() -> None:
    """Every pattern finds files, and every file beside the code is found by one."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    found: set[str] = set()
    for package, globs in patterns.items():
        folder = ROOT / package.replace(".", "/")
        assert (folder / "__init__.py").is_file(), f"{package} is no package"
        for pattern in globs:
            matched = {path.relative_to(ROOT).as_posix() for path in folder.glob(pattern) if path.is_file()}
            assert matched, f"{package}: {pattern} finds nothing"
            found |= matched
    beside = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert beside - found == {"mats_core/QUIRKS.md", "jobs/SCALE.md"}  # for readers of the repository


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PATH=path or os.environ["PATH"])
    tool = shutil.which("make") or "make"
    return subprocess.run(
        [tool, "--no-print-directory", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def needs_make(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs make."""
    absent = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
    return pytest.mark.processes(absent(test))


@needs_make
def test_make_says_when_python_is_missing() -> None:
    result = make("check-tools", "PYTHON=python-that-is-not-there")
    assert result.returncode != 0
    assert "python-that-is-not-there was not found" in result.stderr
    assert "make PYTHON=" in result.stderr


@needs_make
def test_make_says_when_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    result = make("check-tools", f"PYTHON={old}")
    assert result.returncode != 0
    assert "is Python 3.8.1, but MATS needs Python 3.10, 3.11 or 3.12" in result.stderr


@needs_make
def test_make_says_when_git_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    result = make("check-tools", path=str(tmp_path))
    assert result.returncode != 0
    assert "git was not found" in result.stderr


@needs_make
def test_make_is_content_with_this_python() -> None:
    result = make("check-tools", f"PYTHON={sys.executable}")
    assert (result.returncode, result.stderr) == (0, "")


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec make test$", script.read_text(), re.MULTILINE)
    assert re.search(r"^PYTEST .*--durations=10", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.long
@pytest.mark.processes
def test_a_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Needs a package index for the build; dependencies are those of this environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "demo", "build", "*.egg-info", "__pycache__")
    )
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(copy)], check=True)
    shutil.rmtree(copy)
    (wheel,) = (tmp_path / "dist").iterdir()
    subprocess.run([*pip, "install", "--target", str(tmp_path / "tools"), "twine"], check=True)
    tools = dict(os.environ, PYTHONPATH=str(tmp_path / "tools"))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel)], env=tools, check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    code = (
        "import mats_core, pipelines.pages.report, jobs.cli; mats_core.load_model('builtin'); print(mats_core.__file__)"
    )
    # A foreign working directory: neither the checkout nor this test's folder may be found.
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / "site"), RAY_AUTH_MODE="disabled")
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip().startswith(str(tmp_path / "site"))

    # other people's packages of these names, on a path that comes before and in the very same place
    for theirs in (tmp_path / "theirs", tmp_path / "site"):
        for name in ("jobs", "pipelines"):
            (theirs / name).mkdir(parents=True, exist_ok=True)
            (theirs / name / "__init__.py").write_text("1/0")
    standing = traps(tmp_path / "x", "types")
    soundfile.write(standing / "tone.wav", np.sin(np.arange(16_000) / 10), 16_000)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "theirs"), str(tmp_path / "site")])
    command = [str(tmp_path / "site" / "bin" / "mats"), "caption", "tone.wav", "out"]
    subprocess.run(command, cwd=standing, env=environment, check=True, capture_output=True, text=True)
    assert json.loads((standing / "out" / "_run.json").read_text())["status"] == "complete"
