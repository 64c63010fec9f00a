"""Judged answers → a calibration, with figures of answers that it was not fitted on (scikit-learn)."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from mats_core.confidence.calibration import ALL, Calibration, Curve, Signs, value_of, with_centred
from mats_core.scoring import compute

FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0)
"""Of the ridge: small ones hold weights near 0, as few judged answers need it."""
FEW = ("clap_centred", "clap_score", "logprob_sum", "alike")
"""Signs that are tried by themselves: where hardly any answer is wrong, more of them learn its accidents."""
CROSSED = (("question:", "share"), ("question:", "question_centred"), ("answer:", "question_centred"))
"""Numbers that may count for each word by itself: of some questions an LLM's own doubt says much, of others CLAP's view
of the question; and "no" is wrong where "yes" would be right."""
LEAST_WORD = (10, 0.01)
"""A word is a sign where it stands in so many judged answers and in this share of them, and is lacking in as many."""
_SURE = 0.002  # a fold's mistake at full confidence would otherwise decide by itself


@dataclass(frozen=True)
class Judged:
    """An answer's task, its `Scores.signs`, and whether it is right. sound: answers to one sound stay in one fold."""

    task: str
    signs: Signs
    right: bool
    sound: str = ""


@dataclass
class Fitted:
    """A calibration, and of each task what answers got from folds that did not hold them: (confidence, right)."""

    calibration: Calibration
    held_out: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)


def fit_calibration(
    judged: Sequence[Judged], model: str, data: str = "", judged_by: str = "", rerank: int = 0
) -> Fitted:
    """A curve for each task, and where there are several one for all of them. model: the fingerprint of whose answers
    these are; data, judged_by, rerank: see `Calibration`. Raises ValueError without answers."""
    if not judged:
        raise ValueError("no judged answers")
    tasks = sorted({each.task for each in judged})
    curves: dict[str, Curve] = {}
    held_out: dict[str, list[tuple[float, bool]]] = {}
    for task in [*tasks, *([ALL] if len(tasks) > 1 else [])]:
        own = [each for each in judged if task in (each.task, ALL)]
        curves[task], chances = fit_curve(own, with_words=task != ALL)  # words are those of a task
        if task != ALL:
            held_out[task] = [(chance, each.right) for chance, each in zip(chances, own, strict=True)]
    facts = {"data": data, "judged_by": judged_by, "rerank": rerank}
    return Fitted(Calibration(model=model, tasks=curves, **facts), held_out)


def figures_table(fitted: Fitted) -> str:
    """What held-out folds say of a calibration, as a table for people, in Markdown."""
    lines = ["| task | judged answers | right | calibration error | AUROC |", "|---|---|---|---|---|"]
    for task in fitted.held_out:
        curve = fitted.calibration.tasks[task]
        ece, apart = ("" if value is None else f"{value:.3f}" for value in (curve.ece, curve.auroc))
        lines.append(f"| {task} | {curve.answers} | {curve.right:.3f} | {ece} | {apart} |")
    return "\n".join(lines)


def fit_curve(judged: Sequence[Judged], with_words: bool = True) -> tuple[Curve, list[float]]:
    """The curve that folds it was not fitted on bear out best, by log loss, and the chances those folds got, in order.

    It has few signs, or all numbers, or words too (unless these are not wanted), or numbers that count for each word;
    and its sum goes through isotonic regression or not.

    Where nearly all answers are right, or wrong, it is their share, whatever the signs.
    """
    right = np.array([each.right for each in judged])
    folds = _folds(right, [each.sound for each in judged])
    centres = _centres(judged)
    known = [with_centred(each.signs, centres) for each in judged]
    numbers, words = _names(known)
    words = words if with_words else []
    if not folds or not numbers:
        share = (right.sum() + 1) / (len(right) + 2)
        curve = Curve(
            signs=[], means=[], scales=[], weights=[], bias=math.log(share / (1 - share)),
            answers=len(right), right=float(right.mean()),
        )  # fmt: skip
        return curve, [float(share)] * len(right)
    best: tuple[float, np.ndarray, list[str], float] | None = None
    few = [name for name in FEW if name in numbers]
    choices = [few, numbers, [*numbers, *words] if words else []]
    if "question_centred" in numbers:
        crossed = [f"{word}*{number}" for kind, number in CROSSED for word in words if word.startswith(kind)]
        choices.append([*numbers, *words, *crossed] if crossed else [])
    for names, strength in product(filter(None, choices), STRENGTHS):
        odds = _apart(_table(known, names), right, folds, strength)
        loss = _log_loss(_sigmoid(odds), right)
        if best is None or loss < best[0] - 1e-4:  # of two that are alike the simpler one
            best = (loss, odds, names, strength)
    assert best is not None
    loss, odds, names, strength = best
    values = _table(known, names)
    chances, steps = _sigmoid(odds), list[tuple[float, float]]()
    stepped = np.empty(len(right))
    for test in folds:  # its steps come from curves that knew neither the fold nor the answer
        inner = [mask[~test] for mask in folds if (mask & ~test).any()]
        apart = _apart(values[~test], right[~test], inner, strength)
        stepped[test] = np.interp(odds[test], *zip(*_steps(apart, right[~test]), strict=True))
    if _log_loss(stepped, right) < loss - 1e-4:
        chances, steps = stepped, _steps(odds, right)
    means, scales, weights, bias = _fit(values, right, strength)
    rows = np.stack([chances, right], axis=1).tolist()
    curve = Curve(
        signs=names, means=_short(means), scales=_short(scales), weights=_short(weights), bias=bias,
        centres={name: _short(centre) for name, centre in centres.items()}, steps=steps,
        answers=len(right), right=float(right.mean()),
        ece=compute("calibration_error", rows), auroc=compute("auroc", rows),
        brier=float(np.mean((chances - right) ** 2)),
    )  # fmt: skip
    return curve, [float(chance) for chance in chances]


def _centres(judged: Sequence[Judged]) -> dict[str, np.ndarray]:
    """Name of a vector → the mean of those there are, [D]."""
    found: dict[str, list[np.ndarray]] = {}
    for each in judged:
        for name, vector in each.signs.vectors.items():
            found.setdefault(name, []).append(vector)
    return {name: np.mean(vectors, axis=0) for name, vectors in sorted(found.items())}


def _names(known: Sequence[Mapping[str, float | None]]) -> tuple[list[str], list[str]]:
    """Numbers that are known of some answers and differ, and words that are neither rare nor everywhere."""
    numbers = [name for name in known[0] if ":" not in name]
    count = Counter(name for each in known for name in each if ":" in name)
    least = max(LEAST_WORD[0], LEAST_WORD[1] * len(known))
    words = sorted(name for name, times in count.items() if least <= times <= len(known) - least)
    return [name for name in numbers if len({each[name] for each in known} - {None}) > 1], words


def _table(known: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> np.ndarray:
    """float64 [N, S]; NaN for numbers that are not known, 0 for words that are not there."""
    return np.array([[value_of(each, name) for name in names] for each in known], np.float64)  # None becomes NaN


def _folds(right: np.ndarray, sounds: Sequence[str]) -> list[np.ndarray]:
    """Masks of answers that are held out in turn; none where there are too few: what any two of them leave must hold
    right and wrong ones, for the steps of one fold are fitted on what the others leave."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(FOLDS, int(right.sum()), int((~right).sum()))
    if count < 2:
        return []
    groups = [sound or f"#{at}" for at, sound in enumerate(sounds)]
    if len(set(groups)) < count:
        return []
    masks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class with fewer groups than folds
        for _, test in StratifiedGroupKFold(count, shuffle=True, random_state=0).split(right, right, groups):
            masks.append(np.isin(np.arange(len(right)), test))
    both = all(len(set(right[~(one | other)].tolist())) == 2 for one in masks for other in masks)
    return masks if both and all(mask.any() for mask in masks) else []


def _fit(values: np.ndarray, right: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Means, scales, weights and bias of a logistic regression on [N, S] with gaps."""
    from sklearn.linear_model import LogisticRegression

    means = np.nan_to_num(np.nanmean(values, axis=0))
    scales = np.nan_to_num(np.nanstd(values, axis=0))
    scales[scales < 1e-9] = 1.0
    model: Any = LogisticRegression(C=strength, solver="newton-cholesky").fit(
        np.nan_to_num((values - means) / scales), right
    )
    return means, scales, model.coef_[0], float(model.intercept_[0])


def _odds(values: np.ndarray, fitted: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> np.ndarray:
    means, scales, weights, bias = fitted
    return np.asarray(bias + np.nan_to_num((values - means) / scales) @ weights)


def _apart(values: np.ndarray, right: np.ndarray, folds: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """Log-odds of each answer [N] by a curve that was fitted without its fold."""
    odds = np.zeros(len(right))
    for test in folds:
        odds[test] = _odds(values[test], _fit(values[~test], right[~test], strength))
    return odds


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -60.0, 60.0))))


def _steps(odds: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Where isotonic regression of right on log-odds changes; never quite 0 or 1, which no number of answers shows."""
    from sklearn.isotonic import IsotonicRegression

    least = 1.0 / (len(right) + 2)
    model = IsotonicRegression(y_min=least, y_max=1.0 - least, out_of_bounds="clip").fit(odds, right.astype(float))
    return [
        (round(float(x), 5), round(float(y), 5)) for x, y in zip(model.X_thresholds_, model.y_thresholds_, strict=True)
    ]


def _log_loss(chances: np.ndarray, right: np.ndarray) -> float:
    sure = np.clip(np.where(right, chances, 1.0 - chances), _SURE, 1.0)
    return float(-np.log(sure).mean())


def _short(values: np.ndarray) -> list[float]:
    """Six digits: what a file of plain numbers needs."""
    return [float(f"{value:.6g}") for value in values]
