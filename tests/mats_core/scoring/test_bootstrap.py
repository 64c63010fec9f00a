"""Intervals and paired comparison: laws, and agreement with scikit-learn where it has the same figure."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from mats_core.scoring import STATISTICS, bootstrap, compute, interval, paired_bootstrap


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    low, high = interval("mean", [(v,) for v in values], seed=3)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.004)
    assert high == pytest.approx(values.mean() + half, abs=0.004)
    assert (low, high) == interval("mean", [(v,) for v in values], seed=3)
    assert (low, high) != interval("mean", [(v,) for v in values], seed=4)


def test_macro_f1_is_sklearns_over_labels_that_occur() -> None:
    rng = np.random.default_rng(2)
    true, guessed = rng.integers(0, 4, 60), rng.integers(-1, 6, 60)
    expected = f1_score(true, guessed, labels=[0, 1, 2, 3], average="macro", zero_division=0)
    assert compute("macro_f1", list(zip(true, guessed, strict=True))) == pytest.approx(expected)


def test_macro_and_micro_f1_of_sets_are_sklearns() -> None:
    rng = np.random.default_rng(3)
    true, guessed = rng.integers(0, 2, (50, 5)), rng.integers(0, 2, (50, 5))
    rows = np.concatenate([true, guessed], axis=1)
    assert compute("macro_f1_sets", rows) == pytest.approx(f1_score(true, guessed, average="macro"))
    counts = [((t & g).sum(), g.sum(), t.sum()) for t, g in zip(true, guessed, strict=True)]
    assert compute("micro_f1", counts) == pytest.approx(f1_score(true, guessed, average="micro"))


@pytest.mark.parametrize("levels", [3, 10_000])
def test_mean_average_precision_is_sklearns_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores, truth = rng.integers(0, levels, (80, 4)) / levels, rng.integers(0, 2, (80, 4))
    truth[:, 3] = 0  # a label that does not occur is no part of the mean
    expected = np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in range(3)])
    assert compute("mean_average_precision", np.concatenate([scores, truth], axis=1)) == pytest.approx(expected)


def test_a_resample_counts_an_item_as_often_as_it_is_drawn() -> None:
    rng = np.random.default_rng(5)
    rows = np.concatenate([rng.random((12, 2)), rng.integers(0, 2, (12, 2))], axis=1)
    weights = np.array([0, 2, 1, 3, 1, 0, 1, 1, 2, 1, 0, 1.0])
    drawn = np.repeat(rows, weights.astype(int), axis=0)
    of = STATISTICS["mean_average_precision"](rows)
    assert of(weights) == pytest.approx(compute("mean_average_precision", drawn))


@pytest.mark.parametrize("statistic", STATISTICS)
def test_rows_are_sorted_once_however_many_draws_there_are(statistic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    width = {"micro_f1": 3, "macro_f1_sets": 4, "mean_average_precision": 4}
    width |= {f"bleu_{n}": 10 for n in (1, 2, 3, 4)}
    rows = rng.integers(0, 2, (40, width.get(statistic, 2))).astype(np.float64)
    prepare, prepared = STATISTICS[statistic], []
    monkeypatch.setitem(STATISTICS, statistic, lambda rows: prepared.append(len(rows)) or prepare(rows))
    interval(statistic, rows, draws=50)
    paired_bootstrap(rows, rows, statistic=statistic, draws=50)
    assert len(prepared) == 3, "one run, and two"

    def refused(*given: object, **named: object) -> None:
        raise AssertionError("sorts again")

    of, first = prepare(rows), prepare(rows)(np.ones(len(rows)))
    for name in ("unique", "sort", "argsort", "lexsort", "searchsorted", "split"):
        monkeypatch.setattr(bootstrap.np, name, refused)
    monkeypatch.setattr(bootstrap, "bin_of", refused)
    assert of(np.ones(len(rows))) == first


def test_labels_and_bins_are_told_apart_once_however_many_draws_there_are() -> None:
    """What changes in the rows once they are prepared changes nothing."""
    rng = np.random.default_rng(12)
    rows, weights = rng.integers(0, 3, (40, 2)).astype(np.float64), rng.integers(0, 3, 40).astype(np.float64)
    for statistic in ("macro_f1", "calibration_error"):
        given = rows.copy() if statistic == "macro_f1" else rows / 3
        of = STATISTICS[statistic](given)
        before = of(weights)
        given[:] = 1.0
        assert of(weights) == before


LITERAL = {
    "macro_f1": (0.1655228758169935, 0.03333333333333333, 0.28696527123435184),
    "macro_f1_sets": (0.5386363636363636, 0.40610467610467615, 0.6318852134622484),
    "calibration_error": (0.33160861775782224, 0.2531214739865202, 0.5050674713329082),
}
"""Value, low and high of `rows` below, as they were when every draw went over the rows anew."""


def test_values_are_what_they_were_of_lists_and_of_arrays() -> None:
    rng = np.random.default_rng(11)
    rows = {
        "macro_f1": np.stack([rng.integers(0, 4, 40), rng.integers(-1, 5, 40)], axis=1).astype(float),
        "macro_f1_sets": rng.integers(0, 2, (40, 6)).astype(float),
        "calibration_error": np.stack([rng.random(40), rng.integers(0, 2, 40)], axis=1),
    }
    for name, table in rows.items():
        for given in (table, table.tolist(), [tuple(row) for row in table], list(table)):
            assert (compute(name, given), *interval(name, given, 3)) == pytest.approx(LITERAL[name], rel=1e-12)
    difference, low, high, p = paired_bootstrap(rows["macro_f1"], rows["macro_f1"][::-1], 3, "macro_f1")
    assert (difference, low, high, p) == pytest.approx((0.0, -0.17755146514907671, 0.18223645227321694, 0.99))


def test_a_clear_difference_is_told_from_none() -> None:
    rng = np.random.default_rng(7)
    a = rng.random(300)
    worse = a - 0.05 + rng.normal(0, 0.02, 300)
    difference, low, high, p = paired_bootstrap(a, worse)
    assert difference == pytest.approx(float(np.mean(worse - a)))
    assert low < difference < high < 0 and p <= 0.002
    noise = a + rng.normal(0, 0.02, 300)
    difference, low, high, p = paired_bootstrap(a, noise - np.mean(noise - a))
    assert low < 0 < high and p > 0.5


def test_pairs_are_sharper_than_two_intervals() -> None:
    a = np.random.default_rng(8).random(100)
    _, low, high, _ = paired_bootstrap(a, a + 0.01)
    assert (low, high) == pytest.approx((0.01, 0.01))
    assert np.diff(interval("mean", [(v,) for v in a]))[0] > 0.08


def test_what_one_run_leaves_out_is_left_out_of_both() -> None:
    assert paired_bootstrap([0.0, 1.0, None, 1.0], [0.5, None, 9.0, 1.5])[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="2 items against 1"):
        paired_bootstrap([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="no item"):
        paired_bootstrap([None], [1.0])


def test_the_same_run_does_not_differ() -> None:
    rows = [(1.0, 1.0, 2.0), (0.0, 2.0, 1.0)]
    assert paired_bootstrap(rows, rows, statistic="micro_f1") == (0.0, 0.0, 0.0, 1.0)
