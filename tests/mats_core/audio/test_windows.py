"""Windows and chunks: every sample in one, its weight by hand, and the mean of their embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.audio.windows import Window, chunk_seconds, pool_windows, windows


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
    assert cut[-1].stop == samples


@pytest.mark.parametrize(("window", "chunk"), [(7, 56), (10, 60), (5, 60), (0.1, 60), (45, 45), (90, 90)])
def test_a_chunk_is_whole_windows_about_a_minute(window, chunk):
    assert chunk_seconds(window) == pytest.approx(chunk)


def test_pooling_is_the_weighted_mean_made_unit_length():
    pooled = pool_windows(np.array([[1, 0], [0, 1]], np.float32), [3.0, 4.0])
    assert pooled == pytest.approx([0.6, 0.8])
    assert pooled.dtype == np.float32


def test_pooling_windows_that_cancel_out_keeps_the_heaviest():
    assert pool_windows(np.array([[1, 0], [-1, 0]], np.float32), [1.0, 1.0]).tolist() == [1.0, 0.0]


def test_pooling_nothing_is_refused():
    with pytest.raises(ValueError, match="do not make a mean"):
        pool_windows(np.zeros((0, 4), np.float32), [])
