"""How good confidences are: do they come true, and do they tell right answers from wrong ones. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

BINS = 10
_Numbers: TypeAlias = "Sequence[float] | np.ndarray"
_Truths: TypeAlias = "Sequence[bool] | np.ndarray"


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: their mean confidence, the share of them that is right, and how many there are."""

    confidence: float
    right: float
    count: int


def reliability_bins(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """The answers in `bins` stretches of equal width from 0 to 1, those that are empty left out."""
    sure, true = _arrays(confidence, right)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    groups = [place == each for each in range(bins)]
    return [Bin(float(sure[g].mean()), float(true[g].mean()), int(g.sum())) for g in groups if g.any()]


def calibration_error(confidence: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence and share right, by bins of equal width, each by its
    answers (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    found = reliability_bins(confidence, right, bins)
    return float(sum(abs(each.confidence - each.right) * each.count for each in found) / len(right))


def auroc(confidence: _Numbers, right: _Truths) -> float | None:
    """The chance that a right answer has more confidence than a wrong one, ties counting half; None without either."""
    sure, true = _arrays(confidence, right)
    positives, negatives = int(true.sum()), int((1 - true).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(sure, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]  # of equal values their mean rank, from 1
    return float((ranks[true > 0].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def auroc_interval(confidence: Sequence[float], right: Sequence[bool], draws: int = 500) -> list[float] | None:
    """95 % bootstrap interval over answers (percentile method, seed 0); None where there is no AUROC."""
    sure, true = _arrays(confidence, right)
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(true), len(true)) for _ in range(draws))
    found = [value for at in drawn if (value := auroc(sure[at], true[at] > 0)) is not None]
    if auroc(confidence, right) is None or not found:
        return None
    return [float(np.percentile(found, share)) for share in (2.5, 97.5)]


def brier(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of confidence and truth (Brier, 1950)."""
    sure, true = _arrays(confidence, right)
    return float(np.mean((sure - true) ** 2))


def _arrays(confidence: _Numbers, right: _Truths) -> tuple[np.ndarray, np.ndarray]:
    if len(confidence) != len(right) or not len(right):
        raise ValueError(f"{len(confidence)} confidences for {len(right)} answers; both must be the same and not zero")
    return np.asarray(confidence, np.float64), np.asarray(right, np.float64)
