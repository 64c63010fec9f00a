"""Metrics of answers against truth. Everything returns plain numbers; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelScores:
    """Scores of predicted label sets against true ones, all between 0 and 1.

    ``micro`` pools all decisions; ``macro`` is the mean of the labels' own F1 over labels that occur in the truth.
    """

    precision: float
    recall: float
    micro: float
    macro: float
    per_label: dict[str, float]


def label_f1(predicted: Sequence[Collection[str]], true: Sequence[Collection[str]]) -> LabelScores:
    """F1 of label sets, one predicted and one true set an item.

    Raises:
        ValueError: when the two differ in length or are empty.
    """
    if len(predicted) != len(true) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} truths; both must be the same and not zero")
    hits: dict[str, np.ndarray] = {}
    for guess, truth in zip(predicted, true, strict=True):
        for label in set(guess) | set(truth):
            row = hits.setdefault(label, np.zeros(3))
            row += (label in guess and label in truth, label in guess, label in truth)
    both, guessed, there = np.sum(list(hits.values()), axis=0) if hits else np.zeros(3)
    per_label = {label: _ratio(2 * h[0], h[1] + h[2]) for label, h in sorted(hits.items())}
    occurring = [per_label[label] for label, h in hits.items() if h[2]]
    return LabelScores(
        precision=_ratio(both, guessed),
        recall=_ratio(both, there),
        micro=_ratio(2 * both, guessed + there),
        macro=float(np.mean(occurring)) if occurring else 0.0,
        per_label=per_label,
    )


def accuracy(predicted: Sequence[str], true: Sequence[str]) -> float:
    """Share of answers equal to the truth, letter case and a final full stop aside."""
    if len(predicted) != len(true) or not true:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} truths; both must be the same and not zero")
    return float(np.mean([_plain(p) == _plain(t) for p, t in zip(predicted, true, strict=True)]))


def bootstrap_interval(
    items: int, statistic: Callable[[np.ndarray], float], draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of item indices (percentile method).

    Args:
        items: how many items there are.
        statistic: from int [items] indices, drawn with replacement, to a number.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(items, size=items)) for _ in range(draws)]
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().strip().rstrip(".").split())
