"""The share that is right by a stratified sample: its interval holds the truth as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from pipelines.sample.estimate import stratified, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 11), (50, 50), (187, 200), (1, 1)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    plain = stratified([(1e9, [True] * right + [False] * (n - right))])
    assert plain is not None
    if n > 1 and 0 < right < n:  # one stratum: the variance is over n − 1
        assert (plain.low, plain.high) == pytest.approx(wilson(right / n, n - 1), abs=1e-6)
    else:
        assert (plain.low, plain.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_strata_count_by_their_rows() -> None:
    found = stratified([(900, [True] * 9 + [False]), (100, [False] * 10)])
    assert found is not None
    assert found.value == pytest.approx(0.81)  # 0.9 · 0.9 + 0.1 · 0
    assert (found.judged, found.rows) == (20, 1000)


def test_what_is_all_judged_is_known() -> None:
    found = stratified([(4, [True, True, False, True]), (2, [False, True])])
    assert found is not None
    assert found.value == found.low == found.high == pytest.approx(4 / 6)
    half = stratified([(40, [True, False] * 10)])
    tenth = stratified([(200, [True, False] * 10)])
    assert half is not None and tenth is not None
    assert half.high - half.low < tenth.high - tenth.low


def test_a_stratum_with_too_few_judgements_joins_its_neighbour() -> None:
    lone = stratified([(100, [True, False]), (100, [True]), (100, []), (100, [True, True])])
    by_hand = stratified([(300, [True, False, True]), (100, [True, True])])
    assert lone == by_hand
    first = stratified([(100, []), (100, [True, False, True])])
    assert first is not None and (first.value, first.rows) == (pytest.approx(2 / 3), 200)
    assert stratified([(10, []), (10, [])]) is None
    assert stratified([]) is None


def test_strata_that_are_alike_inside_do_not_make_the_interval_a_point() -> None:
    sure = stratified([(100, [True] * 5), (100, [False] * 5)])
    assert sure is not None
    assert sure.value == 0.5 and sure.high - sure.low > 0.4


@pytest.mark.parametrize(
    ("shares", "each"),
    [
        (np.linspace(0.55, 0.995, 10), 20),  # as confidence sorts them, 200 judged
        (np.linspace(0.55, 0.995, 10), 5),
        (np.linspace(0.05, 0.95, 10), 20),
        (np.full(10, 0.95), 20),
        (np.full(10, 0.5), 4),
        (np.array([0.9, 0.5]), 60),
    ],
)
def test_the_interval_holds_the_truth_in_95_of_100_draws(shares: np.ndarray, each: int) -> None:
    """Drawn without replacement from archives whose answers are known; 2 000 draws, so ± 1 in 100."""
    rng = np.random.default_rng(1)
    size = 1000
    archives = [rng.permutation(np.arange(size) < round(share * size)) for share in shares]
    truth = float(np.mean(archives))
    held, draws = 0, 2000
    for _ in range(draws):
        found = stratified([(size, rng.choice(archive, each, replace=False).tolist()) for archive in archives])
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.935 <= held / draws <= 0.985


def test_stratifying_by_confidence_makes_it_narrower() -> None:
    shares, each = np.linspace(0.05, 0.95, 10), 20
    rng = np.random.default_rng(2)
    apart = [(1000.0, (rng.random(each) < share).tolist()) for share in shares]
    together = [(10_000.0, [right for _, own in apart for right in own])]
    by_strata, plain = stratified(apart), stratified(together)
    assert by_strata is not None and plain is not None
    assert by_strata.value == pytest.approx(plain.value)
    assert by_strata.high - by_strata.low < 0.9 * (plain.high - plain.low)
