"""Metrics against values worked by hand."""

from __future__ import annotations

import pytest

from mats_core.scoring.label_scores import accuracy, bootstrap_interval, label_f1


def test_label_f1_by_hand() -> None:
    # dog: 1 hit of 2 guesses and 1 truth; rain: 1 hit, 1 guess, 2 truths; cat: only guessed; bell: only true.
    scores = label_f1([{"dog", "rain"}, {"dog", "cat"}], [{"dog", "rain"}, {"rain", "bell"}])
    assert scores.precision == pytest.approx(2 / 4)
    assert scores.recall == pytest.approx(2 / 4)
    assert scores.micro == pytest.approx(0.5)
    assert scores.per_label == pytest.approx({"bell": 0.0, "cat": 0.0, "dog": 2 / 3, "rain": 2 / 3})
    assert scores.macro == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)  # cat does not occur


def test_label_f1_of_nothing_is_zero_and_uneven_lists_are_refused() -> None:
    assert label_f1([set()], [{"dog"}]).micro == 0.0
    with pytest.raises(ValueError, match="1 predictions for 2"):
        label_f1([{"dog"}], [{"dog"}, {"cat"}])


def test_accuracy_ignores_case_and_the_full_stop() -> None:
    assert accuracy(["Yes.", " no", "two"], ["yes", "no", "three"]) == pytest.approx(2 / 3)


def test_bootstrap_interval_holds_the_statistic_and_is_the_same_each_time() -> None:
    values = [1.0] * 30 + [0.0] * 10
    interval = bootstrap_interval(40, lambda i: sum(values[k] for k in i) / 40)
    assert interval[0] < 0.75 < interval[1] and interval == bootstrap_interval(
        40, lambda i: sum(values[k] for k in i) / 40
    )
