"""Figures of confidences, on numbers that one can check by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from mats_core.confidence.reliability import auroc, auroc_interval, brier, calibration_error, reliability_bins


def test_bins_hold_what_they_should() -> None:
    bins = reliability_bins([0.05, 0.95, 1.0, 0.91], [False, True, True, False])
    assert [(each.count, each.right) for each in bins] == [(1, 0.0), (3, pytest.approx(2 / 3))]
    assert bins[1].confidence == pytest.approx((0.95 + 1.0 + 0.91) / 3)


def test_calibration_error_is_the_weighted_distance() -> None:
    """Three at 0.95, of which two are right, and one at 0.05 that is wrong."""
    found = calibration_error([0.95, 0.95, 0.95, 0.05], [True, True, False, False])
    assert found == pytest.approx(0.75 * (0.95 - 2 / 3) + 0.25 * 0.05)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0


def test_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    sure = np.round(rng.random(500), 2)  # with ties
    right = rng.random(500) < sure
    assert auroc(sure, right) == pytest.approx(roc_auc_score(right, sure))
    assert brier(sure.tolist(), right.tolist()) == pytest.approx(brier_score_loss(right, sure))
    low, high = auroc_interval(sure, right) or (0.0, 0.0)
    assert low < roc_auc_score(right, sure) < high and high - low < 0.12


def test_what_cannot_be_ranked_has_no_auroc() -> None:
    assert auroc([0.1, 0.9], [True, True]) is None and auroc_interval([0.1, 0.9], [True, True]) is None
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    with pytest.raises(ValueError, match="2 confidences for 1 answers"):
        auroc([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="not zero"):
        calibration_error([], [])
