"""MATS finds its own packages: what else is called `jobs` or `pipelines`, and what lies in the folder one stands in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mats_core import packages
from mats_core.packages import ROOT, overwritten

NAMES = ("pipelines", "random", "numpy", "typing", "json", "logging", "ray", "pyarrow", "socket")
FOLDERS = ("torch", "soundfile", "av", "ray")


def traps(folder: Path, *more: str) -> Path:
    """A folder of modules that fail when they are imported."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*NAMES, *more):
        (folder / f"{name}.py").write_text("1/0")
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("1/0")
    return folder


def clashing(folder: Path) -> Path:
    """A folder with other people's packages of our names."""
    for name in ("jobs", "pipelines"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("1/0")
        (folder / name / "queue.py").write_text("1/0")
    return folder


def mats(*words: str, cwd: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """The installed command, which is a script elsewhere."""
    script = cwd.parent / "mats"
    script.write_text("import sys\nfrom mats_core.packages import main\nsys.exit(main())\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*before, str(ROOT)])}
    return subprocess.run([sys.executable, str(script), *words], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.processes
def test_the_folder_one_stands_in_is_not_imported_from(tmp_path: Path) -> None:
    shown = mats("--help", cwd=traps(tmp_path / "x", "types"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "caption" in shown.stdout
    there = traps(tmp_path / "y")
    command = [sys.executable, "-m", "jobs", "--help"]
    shown = subprocess.run(command, cwd=there, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (shown.returncode, shown.stderr) == (0, b"")


@pytest.mark.processes
def test_packages_of_the_same_names_on_pythonpath_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    shown = mats("--help", cwd=tmp_path / "x", before=[str(clashing(tmp_path / "theirs"))])
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "caption" in shown.stdout


@pytest.mark.processes
@pytest.mark.parametrize("theirs", ["__init__.py", "cli.py"])
def test_another_distribution_in_the_same_place(tmp_path: Path, theirs: str) -> None:
    """Its `jobs/__init__.py` over ours does no harm; over a module of ours it is told, not run."""
    site, standing = tmp_path / "site", tmp_path / "x"
    standing.mkdir()
    for name in ("mats_core", "pipelines", "jobs"):
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__", "builtin", "assets"))
    record = site / "mats_audio-1.dist-info" / "RECORD"
    record.parent.mkdir()
    files = [*site.rglob("*.py")]
    record.write_text("".join(f"{file.relative_to(site)},sha256=x,{file.stat().st_size}\n" for file in files))
    assert list(overwritten(site)) == []
    (site / "jobs" / theirs).write_text("1/0")
    assert list(overwritten(site)) == [f"jobs/{theirs}"]
    shown = mats("--help", cwd=standing, before=[str(site)])
    if theirs == "__init__.py":
        assert (shown.returncode, shown.stderr) == (0, "")
    else:
        assert shown.returncode == 2
        said = f"mats: another package was installed over jobs/cli.py in {site}; give mats an environment of its own\n"
        assert shown.stderr == said


def test_who_imports_the_model_alone_keeps_packages_of_these_names() -> None:
    assert not any(isinstance(each, packages._OwnPackages) for each in sys.meta_path)


def run_program(program: str) -> list[str]:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.processes
def test_transformers_is_imported_without_what_nobody_uses() -> None:
    """It is there for whoever wants it afterwards: other libraries, masks of padded prompts, the compiler."""
    program = """
import torch
from mats_core.packages import UNUSED, import_transformers
left_out = (*UNUSED, "torch._dynamo", "sympy")
import_transformers()
print(sorted(name for name in left_out if name in sys.modules))
from mats_core import load_model
from mats_core.model.asking import Request
model = load_model("builtin")
model.answer_embeddings(torch.ones(1, model.config.embedding_dim), [Request("caption")])
print(sorted(name for name in left_out if name in sys.modules))
from transformers import ClapModel, LlamaConfig, LlamaForCausalLM
import scipy.optimize, sklearn, pandas
print(sorted(name for name in UNUSED if sys.modules.get(name)))
torch.manual_seed(0)
sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
llm = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
ids, mask = torch.tensor([[0, 0, 7, 8], [4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
together = llm.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=49)
alone = llm.generate(ids[:1, 2:], max_new_tokens=4, do_sample=False, eos_token_id=49)
print(together[0, 2:].tolist() == alone[0].tolist())
compiled = torch.compile(llm.model.layers[0].mlp, backend="eager")
x = torch.ones(1, 16)
print(torch.equal(compiled(x), llm.model.layers[0].mlp(x)), torch.distributed.is_available())
"""
    assert run_program(program) == ["[]", "[]", "['pandas', 'scipy', 'sklearn']", "True", "True True"]


@pytest.mark.processes
def test_a_process_that_has_transformers_keeps_all_of_it() -> None:
    program = "import transformers.generation.utils; before = set(sys.modules); import mats_core.packages as ours; "
    told = "print([name for name in set(sys.modules) - before if not name.startswith('mats_core')])"
    assert run_program(f"{program}ours.import_transformers(); {told}") == ["[]"]


@pytest.mark.processes
def test_a_transformers_that_wants_more_gets_it() -> None:
    """Marks without the one it asks for: then all is imported as it is."""
    program = """
from mats_core import packages
packages._Marks.__getattr__ = lambda self, name: {}[name]
packages.import_transformers()
from transformers import LlamaForCausalLM
import torch._dynamo
print(callable(torch._dynamo.disable), torch.distributed.is_available())
"""
    assert run_program(program) == ["True True"]
