"""Imports point one way: jobs → pipelines → mats_core; and the command line answers without heavy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "mats_core": {"pipelines", "jobs", "ray", "tests"},
    "pipelines": {"jobs", "typer", "rich", "tests"},
    "jobs": {"tests"},
}


def imported(path: Path) -> set[str]:
    """First names of everything a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_point_one_way(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    wrong = {str(path.relative_to(ROOT)): imported(path) & FORBIDDEN[package] for path in modules}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from ray.data import Dataset\n    import torch.nn\n")
    assert imported(module) == {"ray", "torch"}


def test_the_command_line_imports_neither_torch_nor_ray() -> None:
    heavy = "[name for name in ('torch', 'ray', 'transformers') if name in sys.modules]"
    code = f"import sys, jobs.cli, pipelines.archive.caption; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
