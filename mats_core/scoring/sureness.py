"""How good the confidence of answers is, by which of them are right: three metrics, and what pictures of them show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mats_core.scoring.bootstrap import bin_of, risk_at
from mats_core.scoring.items import Item, Kind, Metric, Scores
from mats_core.scoring.metric import of_rows

SURENESS = ("auroc", "ece", "risk_area")
"""The metrics of confidence, of every kind of answer."""
TARGETS = (0.9, 0.95, 0.99)
"""Shares of right answers for which it is told how many must be thrown away."""
MOST_POINTS = 200
CAPTION_RIGHT: Mapping[str, float] = {"cider_d": 0.5, "spider": 0.3, "fense": 0.5}
"""The leading metric of captions → from which value on one counts as right. A convention: captions are no yes or no."""
_WHOLLY = ("accuracy", "accuracy_exact", "accuracy_normalised", "macro_f1")
LABELS_RIGHT = "names no wrong sound and at least half of the true ones"


def right_answers(kind: Kind, items: Sequence[Item], scores: Scores) -> tuple[list[bool | None], str]:
    """Whether each item's first answer is right (None: not told), and what that means, in words ("": nothing does).

    A label or option is right where it is the true one; a set of labels where it names no wrong one and half of the
    true ones; a caption where its leading metric reaches CAPTION_RIGHT.
    """
    matched = scores.details.get("matched") or [None] * len(items)
    if kind in ("label", "choice"):
        leading = scores.metrics.get("accuracy")
        known = [value is not None for value in leading.values] if leading else [True] * len(items)
        true = [item.answer if kind == "choice" else next(iter(item.labels), "") for item in items]
        facts = zip(known, true, matched, strict=True)
        return [taken == right if told and right else None for told, right, taken in facts], "the true one is named"
    if kind == "labels" and (metric := scores.metrics.get("micro_f1")) is not None:
        return [None if row is None else labels_right(*row) for row in metric.rows], LABELS_RIGHT
    for name in CAPTION_RIGHT if kind == "caption" else ():
        if (metric := scores.metrics.get(name)) is not None and metric.value is not None:
            return reached(name, metric.values)
    return [None] * len(items), ""


def reached(
    metric: str, values: Sequence[float | None], at_least: float | None = None
) -> tuple[list[bool | None], str]:
    """Whether each answer's value in a metric makes it right (None: it has none), and what that means, in words.

    at_least: what it must reach; by default as CAPTION_RIGHT has it, 1 where an answer is right or wrong, else 0.5.
    """
    usual = 1.0 if metric in _WHOLLY else CAPTION_RIGHT.get(metric, 0.5)
    least = usual if at_least is None else at_least
    return [None if value is None else bool(value >= least) for value in values], f"{metric} is at least {least:g}"


def labels_right(hits: float, named: float, true: float) -> bool:
    """Whether labels are right: `hits` of those `named` are among the `true` ones."""
    return hits == named and 2 * hits >= true


def score_confidence(
    items: Sequence[Item], confidence: Sequence[float | None], right: Sequence[bool | None], seed: int, meaning: str
) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Metrics by name (auroc, ece, risk_area), and the details of their pictures; both empty where no item has both.

    meaning: of "right", in words. details: mean confidence, right (share), n, meaning; bins: (mean confidence, share
    right, items); curve: (share kept, share wrong of it, confidence), at most MOST_POINTS; kept: of each of TARGETS the
    largest share that may be kept, with its confidence, None where no part is so good.
    """
    pairs = list(zip(confidence, right, strict=True))
    why = ["no confidence" if sure is None else "not judged" if true is None else "" for sure, true in pairs]
    rows = [None if sure is None or true is None else (float(sure), float(true)) for sure, true in pairs]
    counted = np.array([row for row in rows if row is not None], np.float64).reshape(-1, 2)
    if not len(counted):
        return {}, {}
    values = [None if row is None else row[0] for row in rows]
    notes = {
        "auroc": ("auroc", True, "how often a right answer is more confident than a wrong one; 0.5 is a guess"),
        "ece": ("calibration_error", False, "how far confidence is from the share that is right"),
        "risk_area": ("risk_area", False, "share of wrong answers, over all shares kept, the most confident first"),
    }
    if one_sided := {0.0: "wrong", 1.0: "right"}.get(float(counted[:, 1].mean())):
        none = f"1 says nothing here: all answers are {one_sided}, and there is no pair of a right and a wrong one"
        notes["auroc"] = ("auroc", True, none)
    metrics = {}
    for name, (statistic, up, note) in notes.items():
        note = f"{note} (right: {meaning})"
        metrics[name] = of_rows(name, items, rows, values, why, statistic, seed, higher_is_better=up, note=note)
    return metrics, {"confidence": {"meaning": meaning, **_pictures(counted)}}


def reliability_bins(rows: np.ndarray) -> list[list[float]]:
    """[mean confidence, share right, answers] of each stretch of confidence that is not empty, from rows [N, 2]
    (confidence, 1 where right)."""
    places = bin_of(rows[:, 0])
    groups = [rows[places == each] for each in np.unique(places)]
    return [[float(own[:, 0].mean()), float(own[:, 1].mean()), len(own)] for own in groups]


def _pictures(rows: np.ndarray) -> dict[str, Any]:
    levels, kept, wrong = risk_at(rows, np.ones(len(rows)))
    share, risk = kept / kept[-1], wrong / kept
    places = np.unique(np.linspace(0, len(share) - 1, MOST_POINTS).astype(int))
    best = {target: np.flatnonzero(1 - risk >= target - 1e-12) for target in TARGETS}
    return {
        "n": len(rows), "mean": float(rows[:, 0].mean()), "right": float(rows[:, 1].mean()),
        "bins": reliability_bins(rows),
        "curve": [[float(share[at]), float(risk[at]), float(levels[at])] for at in places],
        "kept": {
            f"{target:g}": {"share": float(share[at[-1]]), "confidence": float(levels[at[-1]])} if len(at) else None
            for target, at in best.items()
        },
    }  # fmt: skip
