"""`aac-metrics` without its package's `__init__`, which imports sentence-transformers, torchmetrics and transformers
(ten seconds, and an error where one of them does not fit) for metrics that need none of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_HEAVY = frozenset({"fense"})  # what does need them


def function(name: str) -> Callable[..., Any]:
    """A function of `aac_metrics.functional` by the name of its metric. ImportError where it cannot be loaded."""
    if name in _HEAVY or "aac_metrics.functional" in sys.modules:
        return getattr(importlib.import_module("aac_metrics.functional"), name)
    return getattr(_module(f"functional.{name}"), name)


def _module(name: str) -> ModuleType:
    """A module of aac-metrics, its packages standing in as empty ones while it is imported."""
    spec = importlib.util.find_spec("aac_metrics")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("aac_metrics is not installed")
    root = Path(next(iter(spec.submodule_search_locations)))
    stand_ins = {"aac_metrics": root, "aac_metrics.functional": root / "functional"}
    for package, folder in stand_ins.items():
        empty = ModuleType(package)
        empty.__path__ = [str(folder)]
        sys.modules[package] = empty
    try:
        return importlib.import_module(f"aac_metrics.{name}")
    finally:
        # note: the packages go, so that a later import gets the real ones; the modules in them are real and stay
        for package in stand_ins:
            del sys.modules[package]


def tokenization() -> ModuleType:
    """aac-metrics' calls of Stanford's tokenizer."""
    return _module("utils.tokenization")
