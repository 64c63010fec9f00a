"""How good confidence is: figures of scikit-learn, and of curves that can be drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mats_core.scoring import (
    Item,
    Scores,
    compute,
    interval,
    labels_right,
    paired_bootstrap,
    reached,
    reliability_bins,
    right_answers,
    score,
)
from mats_core.scoring.sureness import score_confidence

RNG = np.random.default_rng(0)


def made_up(n: int, ties: bool = False, seed: int = 0) -> np.ndarray:
    """Rows (confidence, right) whose confidence comes true."""
    rng = np.random.default_rng(seed)
    sure = rng.random(n)
    sure = np.round(sure, 1) if ties else sure
    return np.stack([sure, rng.random(n) < sure], axis=1).astype(np.float64)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties: bool) -> None:
    rows = made_up(500, ties)
    assert compute("auroc", rows.tolist()) == pytest.approx(roc_auc_score(rows[:, 1], rows[:, 0]), abs=1e-12)
    assert compute("auroc", [(0.3, 1.0), (0.9, 1.0)]) == 1.0  # no wrong one to be told apart
    all_right = np.stack([rows[:, 0], np.ones(len(rows))], axis=1)
    assert paired_bootstrap(rows, all_right, statistic="auroc", draws=50)[0] > 0  # and the gate stays open


def test_bins_hold_what_they_should_and_the_calibration_error_is_their_weighted_distance() -> None:
    """Three near 0.95, of which two are right, and one at 0.05 that is wrong."""
    rows = np.array([(0.05, 0.0), (0.95, 1.0), (1.0, 1.0), (0.91, 0.0)])
    low, high = reliability_bins(rows)
    assert low == [0.05, 0.0, 1] and high == pytest.approx([(0.95 + 1.0 + 0.91) / 3, 2 / 3, 3])
    assert compute("calibration_error", rows) == pytest.approx(0.75 * (2.86 / 3 - 2 / 3) + 0.25 * 0.05)
    assert compute("calibration_error", [(1.0, 1.0), (0.0, 0.0)]) == 0.0


def test_weights_are_copies() -> None:
    from mats_core.scoring.bootstrap import STATISTICS

    rows, weights = made_up(60, ties=True), np.random.default_rng(1).integers(0, 4, 60).astype(np.float64)
    copies = np.repeat(rows, weights.astype(int), axis=0)
    for name in ("auroc", "calibration_error", "risk_area"):
        assert STATISTICS[name](rows)(weights) == pytest.approx(STATISTICS[name](copies)(np.ones(len(copies))))


def test_risk_area_is_the_mean_share_of_wrong_answers_over_what_is_kept() -> None:
    rows = made_up(4000, seed=3)
    order = np.argsort(-rows[:, 0])
    by_hand = np.mean(np.cumsum(1 - rows[order, 1]) / np.arange(1, 4001))
    assert compute("risk_area", rows.tolist()) == pytest.approx(by_hand, abs=2e-3)
    blind = np.stack([np.full(50, 0.5), np.arange(50) % 5 > 0], axis=1)
    assert compute("risk_area", blind.tolist()) == pytest.approx(0.2)  # one confidence for all: risk is the share wrong
    assert compute("risk_area", [(0.9, 1.0), (0.1, 1.0)]) == 0.0
    half = compute("risk_area", [(0.9, 1.0)] * 5 + [(0.1, 0.0)] * 5)
    assert half == pytest.approx(1 - 0.5 - 0.5 * np.log(2))  # ∫ from ½ to 1 of (x − ½) / x


def test_the_intervals_hold_and_a_worse_confidence_is_seen_to_be_worse() -> None:
    rows = made_up(800)
    low, high = interval("auroc", rows.tolist(), draws=200)
    assert low < roc_auc_score(rows[:, 1], rows[:, 0]) < high < low + 0.1
    blind = rows.copy()
    blind[:, 0] = np.random.default_rng(5).permutation(blind[:, 0])
    difference, low, high, _ = paired_bootstrap(rows, blind, statistic="auroc", draws=200)
    assert difference < -0.2 and high < 0


def test_score_confidence_leaves_out_what_has_none_and_says_what_may_be_kept() -> None:
    items = [Item(str(n), f"{n}.wav", "caption") for n in range(12)]
    sure = [0.95, 0.95, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1, None, 0.99]
    right = [True, True, True, True, True, False, True, False, False, False, True, None]
    metrics, details = score_confidence(items, sure, right, 0, "so it is")
    assert list(metrics) == ["auroc", "ece", "risk_area"]
    assert [metrics[name].higher_is_better for name in metrics] == [True, False, False]
    assert metrics["auroc"].n == 10
    assert metrics["auroc"].left_out == (("10", "no confidence"), ("11", "not judged"))
    assert metrics["auroc"].value == pytest.approx(23 / 24)  # of 6 · 4 pairs, (0.6 right, 0.7 wrong) alone is not so
    told = details["confidence"]
    assert told["kept"]["0.95"] == {"share": 0.5, "confidence": 0.8}
    assert told["kept"]["0.9"] == told["kept"]["0.99"] == {"share": 0.5, "confidence": 0.8}
    assert told["curve"][0] == [0.2, 0.0, 0.95] and told["curve"][-1] == [1.0, pytest.approx(0.4), 0.1]
    assert (told["n"], told["right"]) == (10, 0.6)
    assert sum(count for _, _, count in told["bins"]) == 10
    assert score_confidence(items, [None] * 12, right, 0, "") == ({}, {})
    _, bad = score_confidence(items[:2], [0.9, 0.8], [False, True], 0, "")
    assert bad["confidence"]["kept"]["0.95"] is None


@pytest.mark.parametrize(("right", "told"), [(True, "all answers are right"), (False, "all answers are wrong")])
def test_an_auroc_without_a_pair_says_that_it_says_nothing(right: bool, told: str) -> None:
    items = [Item(str(n), f"{n}.wav", "caption") for n in range(3)]
    metrics, _ = score_confidence(items, [0.9, 0.8, 0.7], [right] * 3, 0, "so it is")
    assert metrics["auroc"].note.startswith(f"1 says nothing here: {told}")
    some, _ = score_confidence(items, [0.9, 0.8, 0.7], [right, not right, right], 0, "so it is")
    assert some["auroc"].note.startswith("how often")


def test_what_is_right_of_each_kind() -> None:
    labels = [Item(str(n), "a", "cla_label", labels=("dog", "rain", "bell")) for n in range(5)]
    said = ["dog, rain, bell", "dog, rain", "dog", "dog, rain, siren", None]
    scores = score("labels", labels, said, labels=["dog", "rain", "bell", "siren"], metrics=["micro_f1"])
    assert right_answers("labels", labels, scores)[0] == [True, True, False, False, None]
    assert labels_right(1, 1, 2) and not labels_right(1, 1, 3) and not labels_right(0, 0, 1)
    single = [Item(str(n), "a", "cla_label", labels=("dog",)) for n in range(3)]
    scores = score("label", single, ["dog", "siren", None], labels=["dog", "siren"], metrics=["accuracy"])
    assert right_answers("label", single, scores)[0] == [True, False, None]
    asked = [Item(str(n), "a", "QA", question="?", choices=("yes", "no"), answer="yes") for n in range(3)]
    scores = score("choice", asked, [["yes", "no"], ["no", "yes"], [None, None]], metrics=["accuracy"])
    assert right_answers("choice", asked, scores)[0] == [True, False, None]
    assert right_answers("chat", asked, Scores()) == ([None] * 3, "")


@pytest.mark.parametrize(
    ("metric", "at_least", "right", "told"),
    [
        ("cider_d", None, [False, True, True, None], "cider_d is at least 0.5"),
        ("spider", None, [True, True, True, None], "spider is at least 0.3"),
        ("accuracy", None, [False, False, True, None], "accuracy is at least 1"),
        ("meteor", None, [False, True, True, None], "meteor is at least 0.5"),
        ("cider_d", 0.0, [True, True, True, None], "cider_d is at least 0"),
        ("accuracy", 0.5, [False, True, True, None], "accuracy is at least 0.5"),
    ],
)
def test_what_a_metric_must_reach(metric: str, at_least: float | None, right: list[bool | None], told: str) -> None:
    assert reached(metric, [0.3, 0.5, 1.0, None], at_least) == (right, told)
