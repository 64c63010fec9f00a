"""Windows and chunks: every sample in one, its weight by hand, and the mean of their embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.audio.windows import (
    MOST_CUT_S,
    Window,
    chunk_seconds,
    chunk_starts,
    is_long,
    pool_windows,
    stretch_starts,
    window_starts,
    windows,
)  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (0, []),
        (3, [Window(0, 3, 0.3)]),  # shorter than a window: whole, the encoder pads it
        (70, [Window(0, 70, 7.0)]),
        (71, [Window(0, 70, 7.0), Window(1, 71, 0.1)]),  # the rest is moved back to end with the chunk
        (140, [Window(0, 70, 7.0), Window(70, 140, 7.0)]),
        (160, [Window(0, 70, 7.0), Window(70, 140, 7.0), Window(90, 160, 2.0)]),
    ],
)
def test_windows_of_seven_seconds_at_ten_hertz(samples, expected):
    assert windows(samples, 10, 7.0) == expected


@pytest.mark.parametrize("samples", [1, 4999, 80000, 80001, 123456, 960000])
def test_the_weights_of_windows_add_up_to_the_seconds(samples):
    cut = windows(samples, 16000, 5.0)
    assert sum(window.weight for window in cut) == pytest.approx(samples / 16000)
    heard = np.zeros(samples, int)
    for window in cut:
        heard[window.start : window.stop] += 1
    assert heard.all(), "every sample is in a window"
    twice = 0 if samples < 80000 else -samples % 80000
    assert (heard == 2).sum() == twice and heard.max() <= 2, "only the last window is moved back"


@pytest.mark.parametrize(("window", "chunk"), [(7, 56), (10, 60), (5, 60), (0.1, 60), (45, 45), (90, 90)])
def test_a_chunk_is_whole_windows_about_a_minute(window, chunk):
    assert chunk_seconds(window) == pytest.approx(chunk)


def test_pooling_is_the_weighted_mean_made_unit_length():
    pooled = pool_windows(np.array([[1, 0], [0, 1]], np.float32), [3.0, 4.0])
    assert pooled == pytest.approx([0.6, 0.8])
    assert pooled.dtype == np.float32


@pytest.mark.parametrize("at", [0, 1, 2])
def test_pooling_windows_that_cancel_out_keeps_the_heaviest(at):
    vectors, weights = np.tile(np.array([[-1, 0]], np.float32), (3, 1)), [1.0, 1.0, 1.0]
    vectors[at], weights[at] = [1, 0], 2.0
    assert pool_windows(vectors, weights).tolist() == [1.0, 0.0]


def test_pooling_nothing_is_refused():
    with pytest.raises(ValueError, match="do not make a mean"):
        pool_windows(np.zeros((0, 4), np.float32), [])


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [
        (3.0, [(0.0, 3.0)]),
        (14.0, [(0.0, 7.0), (7.0, 7.0)]),
        (14.04, [(0.0, 7.0), (7.0, 7.0)]),  # a rest shorter than 50 ms belongs to the window before it
        (15.0, [(0.0, 7.0), (7.0, 7.0), (8.0, 7.0)]),
    ],
)
def test_where_the_windows_of_a_chunk_begin(length_s, expected):
    assert window_starts(length_s, 100, 7.0) == expected


@pytest.mark.parametrize(
    ("duration_s", "start_s", "end_s", "expected"),
    [
        (130.0, 0.0, None, [(0.0, 60.0), (60.0, 60.0), (120.0, None)]),
        (130.0, 20.0, None, [(20.0, 60.0), (80.0, None)]),
        (130.0, 20.0, np.inf, [(20.0, 60.0), (80.0, None)]),
        (130.0, 20.0, 130.0, [(20.0, 60.0), (80.0, 50.0)]),
        (130.0, 20.0, 500.0, [(20.0, 60.0), (80.0, 50.0)]),  # no further than the sound
        (130.0, 20.0, 1e18, [(20.0, 60.0), (80.0, 50.0)]),
        (130.0, 7.5, 12.25, [(7.5, 4.75)]),
        (130.0, 10.0, 70.04, [(10.0, 60.040000000000006)]),  # a rest shorter than 50 ms
        (None, 20.0, None, [(20.0, None)]),
        (None, 20.0, np.inf, [(20.0, None)]),
        (None, 20.0, 100.0, [(20.0, 60.0), (80.0, 20.0)]),
        (None, 20.0, 1e18, [(20.0, None)]),  # nobody knows how long the sound is: to its end, and not in 1e16 chunks
        (130.0, 130.0, 1e18, [(130.0, None)]),  # it begins where the sound is said to end
        (130.0, 200.0, 210.0, [(200.0, 10.0)]),
        (1e18, 0.0, None, [(0.0, None)]),  # a header that cannot be true
    ],
)
def test_the_chunks_of_a_stretch(duration_s, start_s, end_s, expected):
    assert stretch_starts(duration_s, 60.0, start_s, end_s) == expected


def test_a_file_of_weeks_is_cut_and_an_impossible_length_is_not():
    assert len(chunk_starts(30 * 86_400.0, 60.0)) == 30 * 1440
    assert len(chunk_starts(MOST_CUT_S, 60.0)) == 166_667
    assert chunk_starts(1e15, 60.0) == chunk_starts(None, 60.0) == [(0.0, None)]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], False), ([5.0], False), ([5.0, 2.5], False), ([5.0, 2.6], True), ([2.6, 5.0], True),
        ([0.0, 5.0, 0.0], False), ([0.0, 0.0], False), ([5.0] * 12, True),
    ],
)  # fmt: skip
def test_what_is_more_than_a_window_and_a_half_is_long(weights, expected):
    assert is_long(np.array(weights)) is expected
