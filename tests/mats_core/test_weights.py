"""What transformers does by itself where we load models with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import mats_core

model = mats_core.load_model("builtin")
assert "sklearn" not in sys.modules
from transformers.generation import candidate_generator
from transformers.utils import is_sklearn_available

assert candidate_generator.is_sklearn_available is is_sklearn_available and is_sklearn_available()
from sklearn.metrics import roc_curve

ours, theirs = (curve([0, 1, 1, 0], [0.1, 0.5, 0.4, 0.3]) for curve in (candidate_generator.roc_curve, roc_curve))
assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
"""


@pytest.mark.processes
@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_scikit_learn_waits_until_assisted_generation_asks_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
