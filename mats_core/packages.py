"""The command `mats` and its workers find MATS's own packages, whatever else is called so.

`jobs` and `pipelines` are common names: another distribution, a folder on PYTHONPATH or one that one stands in may have
them too. A program that only imports `mats_core` is left its own.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

NAMES = ("pipelines", "jobs")
ROOT = Path(__file__).parents[1]
UNUSED = ("scipy", "sklearn", "pandas", "boto3")
"""What transformers and accelerate import where it is installed: for detection of objects, tables, SageMaker."""

_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"


class _OwnPackages(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in NAMES:
            return None
        found = ModuleSpec(fullname, None, is_package=True)
        # note: without its __init__.py, which is but a text; another distribution may have put its own in that place
        found.submodule_search_locations = [str(ROOT / fullname)]
        return found


def import_own() -> None:
    """From now on `pipelines` and `jobs` are the folders beside this package."""
    if not any(isinstance(each, _OwnPackages) for each in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages())


def import_transformers() -> None:
    """Import transformers in a process of our own, without what it imports for models that nobody here has, for
    `torch.compile` and for LLMs spread over GPUs: of the seconds that it takes, two thirds. In a process that has it
    already, or is a program of somebody else's, everything is to stay as it is."""
    if "transformers" in sys.modules:
        return
    with contextlib.suppress(Exception):  # note: another version of it may want more of what is left out
        with _left_out():
            _import_what_answers()
        return
    _import_what_answers()


def _import_what_answers() -> None:
    for name in ("transformers.generation.utils", "transformers.models.auto.modeling_auto", "peft"):
        importlib.import_module(name)


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    """While this lasts what is not there yet of UNUSED counts as not installed, and of torch's compiler there is no
    more than the marks that functions are given for it."""
    import torch.distributed

    others: dict[str, Any] = dict.fromkeys(UNUSED)  # None: as if it were not installed
    if "torch._dynamo" not in sys.modules:
        others |= {each.__name__: each for each in (_Marks("torch._dynamo"), _Deferred(_MASKS))}
    others = {name: each for name, each in others.items() if name not in sys.modules}
    distributed = torch.distributed.is_available
    sys.modules.update(others)
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = distributed
        for name in others:
            del sys.modules[name]


class _Marks(ModuleType):
    """In place of torch's compiler: its decorators, which leave a function as it is."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _mark


def _mark(function: Any = None, *_: Any, **__: Any) -> Any:
    return _mark if function is None else function


class _Deferred(ModuleType):
    """In place of a module: its functions, which import it when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)


def main() -> None:
    """Entry point of `mats`."""
    import_own()
    try:
        importlib.import_module("jobs.start").main()
    except Exception:
        over = ", ".join(overwritten())
        if not over:
            raise
        remedy = "give mats an environment of its own"
        print(f"mats: another package was installed over {over} in {ROOT}; {remedy}", file=sys.stderr)
        sys.exit(2)


def overwritten(root: Path = ROOT) -> Iterator[str]:
    """Files of an installed `mats` that have not the size they were installed with."""
    for record in root.glob("mats_audio-*.dist-info/RECORD"):
        for line in record.read_text(encoding="utf-8").splitlines():
            name, _, size = line.rsplit(",", 2)
            if name.endswith(".py") and size and not name.startswith(".."):
                file = root / name
                if not file.is_file() or file.stat().st_size != int(size):
                    yield name
