"""MATS finds its own packages, whatever other packages are called.

`jobs` and `pipelines` are common names: another distribution, a folder on PYTHONPATH or one that one stands in may have
them too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("mats_core", "pipelines", "jobs")
ROOT = Path(__file__).parents[1]


class _OwnPackages(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in NAMES else None


def import_own() -> None:
    """From now on `mats_core`, `pipelines` and `jobs` are those that lie beside this package."""
    if not any(isinstance(each, _OwnPackages) for each in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages())
