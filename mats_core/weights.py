"""What transformers does by itself, and is kept from where we load models with it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_bars() -> Iterator[None]:
    """transformers 5 draws a progress bar of its own for every model it loads; a job draws one, of its work."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def defer_sklearn() -> None:
    """Let assisted generation import scikit-learn when it first needs it, as transformers 5 does.

    Version 4 imports it with every model, where it is installed: a quarter of what a process takes to start.
    """
    name = "transformers.generation.candidate_generator"
    if name in sys.modules:
        return
    import transformers.utils as utils

    is_there = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        module: Any = importlib.import_module(name)
    finally:
        utils.is_sklearn_available = is_there
    module.is_sklearn_available = is_there
    module.roc_curve = _roc_curve


def _roc_curve(*arguments: Any, **options: Any) -> Any:
    from sklearn.metrics import roc_curve

    return roc_curve(*arguments, **options)
