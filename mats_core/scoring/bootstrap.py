"""Bootstrap over items: the interval of one run, the difference of two runs on the same items.

A metric is a *statistic* of rows, one row an item. ``mean`` takes one number a row; corpus metrics take what they
sum up (BLEU: n-gram counts; F1: hits), so that they are resampled as what they are and not as a mean of parts.
``mean_of_set`` is a mean of numbers that depend on which items there are, as CIDEr-D's do: `OF_SET`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

Row = Sequence[float] | np.ndarray
OfWeights = Callable[[np.ndarray], float]
Statistic = Callable[[np.ndarray], OfWeights]
"""Rows [N, k] → a function of weights [N], how often each counts; what weights do not change is done once."""
_OfBoth = Callable[[np.ndarray, np.ndarray], float]
DRAWS = 1000


def _mean(rows: np.ndarray, weights: np.ndarray) -> float:
    return float(weights @ rows[:, 0] / weights.sum())


def _bleu(order: int) -> _OfBoth:
    """Corpus BLEU of order 1 to 4 from rows (correct 1–4, guessed 1–4, candidate length, reference length)."""

    def statistic(rows: np.ndarray, weights: np.ndarray) -> float:
        total = weights @ rows
        correct, guessed, ours, theirs = total[:order], total[4 : 4 + order], total[8], total[9]
        # note: the tiny numbers are those of the published tools, so that values agree where nothing is right
        precision = (correct + 1e-15) / (guessed + 1e-9)
        ratio = (ours + 1e-15) / (theirs + 1e-9)
        return float(np.exp(np.log(precision).mean() + min(0.0, 1 - 1 / ratio)))

    return statistic


def _micro_f1(rows: np.ndarray, weights: np.ndarray) -> float:
    """Pooled F1 from rows (hits, guessed, true)."""
    hits, guessed, there = weights @ rows
    return float(2 * hits / (guessed + there)) if guessed + there else 0.0


def _macro_f1(rows: np.ndarray) -> OfWeights:
    """Mean F1 of the labels that occur, from rows (index of the true label, index of the answer's or −1)."""
    true, guessed = rows[:, 0].astype(int), rows[:, 1].astype(int)
    size = int(max(true.max(), guessed.max())) + 1
    named, right = np.flatnonzero(guessed >= 0), np.flatnonzero(true == guessed)
    guesses, found = guessed[named], true[right]

    def of(weights: np.ndarray) -> float:
        there = np.bincount(true, weights, size)
        said = np.bincount(guesses, weights[named], size)
        hits = np.bincount(found, weights[right], size)
        return _mean_f1(hits, there, said)

    return of


def _macro_f1_sets(rows: np.ndarray) -> OfWeights:
    """Mean F1 of the labels that occur, from rows of 2·C indicators (true, then guessed)."""
    true, guessed = np.split(rows, 2, axis=1)
    both = true * guessed
    return lambda weights: _mean_f1(weights @ both, weights @ true, weights @ guessed)


def _mean_f1(hits: np.ndarray, there: np.ndarray, said: np.ndarray) -> float:
    """Mean F1 of the labels that occur, of what was counted of each, [C]; 0 where none occurs."""
    occurs = there > 0
    return float((2 * hits[occurs] / (there + said)[occurs]).mean()) if occurs.any() else 0.0


def _auroc(rows: np.ndarray) -> OfWeights:
    """The chance that a right answer is more confident than a wrong one, ties counting half, from rows (confidence, 1
    where right). 1 where there is no such pair: a model that answers all right is no worse than one that does not."""
    levels, place = np.unique(rows[:, 0], return_inverse=True)
    is_right, is_wrong, size = rows[:, 1], 1 - rows[:, 1], len(levels)

    def of(weights: np.ndarray) -> float:
        right, wrong = (np.bincount(place, weights * each, size) for each in (is_right, is_wrong))
        pairs = right.sum() * wrong.sum()
        below = np.cumsum(wrong) - wrong
        return float(right @ (below + wrong / 2) / pairs) if pairs else 1.0

    return of


BINS = 10
"""Stretches of equal width, in which confidence is held against what is right."""


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Which of BINS each confidence [N] lies in: int64 [N]."""
    return np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)


def _calibration_error(rows: np.ndarray) -> OfWeights:
    """Expected calibration error from rows (confidence, 1 where right): the distance of mean confidence and share right
    in BINS of equal width, each by its rows (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""
    places, apart = bin_of(rows[:, 0]), rows[:, 0] - rows[:, 1]
    return lambda weights: float(np.abs(np.bincount(places, weights * apart, BINS)).sum() / weights.sum())


def risk_at(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, rows kept, wrong ones among them), each [K], when all below a confidence are thrown away, from rows
    (confidence, 1 where right); the highest confidence first."""
    return _risk_curve(rows)(weights)


def _risk_curve(rows: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    levels, place = np.unique(-rows[:, 0], return_inverse=True)
    is_wrong = 1 - rows[:, 1]

    def of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kept, wrong = (np.cumsum(np.bincount(place, each, len(levels))) for each in (weights, weights * is_wrong))
        return -levels, kept, wrong

    return of


def _risk_area(rows: np.ndarray) -> OfWeights:
    """Area under the risk–coverage curve: the mean share of wrong answers over all shares that may be kept, the most
    confident first (Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017). Of equal
    confidence, what is kept first is wrong as often as all of them are."""
    curve = _risk_curve(rows)

    def of(weights: np.ndarray) -> float:
        _, kept, wrong = curve(weights)
        ends, bad = np.r_[0.0, kept], np.r_[0.0, wrong]
        sizes, slope = np.diff(ends), np.diff(bad) / np.maximum(np.diff(ends), 1e-12)
        # note: between two ends k the share is (bad + slope · (k − start)) / k, whose integral has a logarithm
        constant = bad[:-1] - slope * ends[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(ends[:-1] > 0, np.log(ends[1:] / ends[:-1]), 0.0)  # from 0 on the constant is 0
        return float((slope * sizes + constant * logs)[sizes > 0].sum() / kept[-1])

    return of


def _average_precision(rows: np.ndarray) -> OfWeights:
    """Mean over labels that occur of average precision, from rows of C scores and C truths. Equal scores are one
    threshold, as in scikit-learn: many items may have the very same answer."""
    scores, truth = np.split(rows, 2, axis=1)
    best_first = np.argsort(-scores, axis=0, kind="stable")  # [N, C]
    ranked = np.take_along_axis(scores, best_first, axis=0)
    ranked_truth = np.take_along_axis(truth, best_first, axis=0)
    n = len(rows)
    last = np.ones_like(ranked, dtype=bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    at = np.where(last, np.arange(n)[:, None], n)
    end = np.minimum.accumulate(at[::-1], axis=0)[::-1]  # [N, C]: last place of the same score
    columns: list[tuple[np.ndarray, ...]] = []
    for c in np.flatnonzero(ranked_truth.any(axis=0)):
        places = np.flatnonzero(ranked_truth[:, c])  # [P]: where the true items are ranked
        last_hit = np.asarray(np.searchsorted(places, end[places, c], side="right") - 1)
        columns.append((best_first[:, c], places, end[places, c], last_hit))

    def of(weights: np.ndarray) -> float:
        values = []
        for order, places, end, last_hit in columns:
            drawn = weights[order]
            positive = drawn[places]
            there = positive.sum()
            if there > 0:
                # note: a place whose items were not drawn has weight 0, and so does its precision here
                seen = np.maximum(np.cumsum(drawn)[end], 1e-12)
                values.append(float(positive @ (np.cumsum(positive)[last_hit] / seen)) / there)
        return float(np.mean(values)) if values else 0.0

    return of


def _unprepared(of: _OfBoth) -> Statistic:
    return lambda rows: partial(of, rows)


STATISTICS: dict[str, Statistic] = {
    "mean": _unprepared(_mean),
    "mean_of_set": _unprepared(_mean),
    **{f"bleu_{n}": _unprepared(_bleu(n)) for n in (1, 2, 3, 4)},
    "micro_f1": _unprepared(_micro_f1),
    "macro_f1": _macro_f1,
    "macro_f1_sets": _macro_f1_sets,
    "auroc": _auroc,
    "calibration_error": _calibration_error,
    "risk_area": _risk_area,
    "mean_average_precision": _average_precision,
}

MEANS = frozenset({"mean", "mean_of_set"})
"""Statistics of rows of one number, which is `Metric.values` of the item."""
OF_SET = frozenset({"mean_of_set"})
"""Statistics whose rows two runs can compare only over the same items."""


def compute(statistic: str, rows: Sequence[Row] | np.ndarray) -> float:
    """A statistic of rows [N, k], a list or an array, every row counted once."""
    return STATISTICS[statistic](_table(rows))(np.ones(len(rows)))


def interval(
    statistic: str, rows: Sequence[Row] | np.ndarray, seed: int = 0, draws: int | None = None
) -> tuple[float, float]:
    """95 % bootstrap interval over items (percentile method) of a statistic of rows [N, k], a list or an array."""
    table = _table(rows)
    of = STATISTICS[statistic](table)
    return _middle([of(weights) for weights in _resamples(len(table), seed, draws or _draws(table))])


def paired_bootstrap(
    a: Sequence[float | Row | None] | np.ndarray,
    b: Sequence[float | Row | None] | np.ndarray,
    seed: int = 0,
    statistic: str = "mean",
    draws: int | None = None,
) -> tuple[float, float, float, float]:
    """How much run B differs from run A on the same items.

    a, b: `Metric.values` (for ``mean``) or `Metric.rows` of two runs, item for item; what is left out (None)
        in one of them is left out in both.
    Returns (difference B − A, low, high, p): the 95 % interval of the difference over resampled items, and the
    two-sided p that it is zero: twice the smaller share of draws on either side of it, at least 1 / draws.
    Raises ValueError: when the two differ in length or have no item in common.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} items against {len(b)}; a paired comparison needs the same items")
    both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not both:
        raise ValueError("no item counts in both runs")
    first = _table([x for x, _ in both])
    of_first, of_second = (STATISTICS[statistic](each) for each in (first, _table([y for _, y in both])))
    ones = np.ones(len(both))
    difference = of_second(ones) - of_first(ones)
    count = draws or _draws(first)
    drawn = np.array([of_second(w) - of_first(w) for w in _resamples(len(both), seed, count)])
    share = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return float(difference), *_middle(drawn), min(1.0, max(2 * share, 1 / count))


def _table(rows: Sequence[float | Row] | np.ndarray) -> np.ndarray:
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


def _middle(drawn: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Where the middle 95 % of draws begin and end."""
    return float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))


def _draws(rows: np.ndarray) -> int:
    """Fewer draws where one costs much (mAP over hundreds of labels)."""
    return DRAWS if rows.size < 200_000 else 200


def _resamples(items: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    """How often each item is drawn, float64 [items] a draw; the same for the same seed and number of items."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(items, size=items), minlength=items).astype(np.float64)
