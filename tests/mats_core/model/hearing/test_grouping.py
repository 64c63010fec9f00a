"""Minutes joined to a file, and cut into windows."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.audio.levels import Levels
from mats_core.audio.windows import pool_windows
from mats_core.errors import SettingsError
from mats_core.model.hearing.clips import Clip
from mats_core.model.hearing.grouping import has_tail, regrouped


def _clip(start_s: float, starts: list[float], weights: list[float], seconds: float, seed: int) -> Clip:
    vectors = np.random.default_rng(seed).standard_normal((len(starts), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    levels = Levels(-1.0 - seed, -10.0 - seed)
    return Clip(vectors, np.array(weights, np.float32), np.array(starts), seconds, 5.0, start_s, levels=levels)


CLIPS = [_clip(0.0, [0.0, 5.0], [5.0, 0.0], 10.0, 0), _clip(10.0, [0.0, 2.0], [5.0, 2.0], 7.0, 1)]


def test_a_file_is_all_of_its_windows_by_their_seconds() -> None:
    (whole,) = regrouped(CLIPS, "file")
    assert (whole.seconds, whole.start_s, list(whole.starts)) == (17.0, 0.0, [0.0, 5.0, 10.0, 12.0])
    assert list(whole.weights) == [5.0, 0.0, 5.0, 2.0] and not whole.silent
    vectors = np.concatenate([clip.embeddings for clip in CLIPS])
    assert np.array_equal(whole.pooled, pool_windows(vectors, [5.0, 0.0, 5.0, 2.0]))
    power = (10 * 10**-1.0 + 7 * 10**-1.1) / 17
    assert whole.levels == Levels(-1.0, round(10 * float(np.log10(power)), 2))


def test_every_window_is_a_clip_with_its_own_times() -> None:
    found = regrouped(CLIPS, "window")
    assert [(clip.start_s, clip.seconds, clip.silent) for clip in found] == [
        (0.0, 5.0, False), (5.0, 5.0, True), (10.0, 5.0, False), (12.0, 5.0, False),
    ]  # fmt: skip
    assert all(len(clip.embeddings) == 1 and clip.starts[0] == 0 for clip in found)
    assert regrouped(CLIPS, "minute") == CLIPS and regrouped([], "file") == []


def test_a_rest_belongs_to_the_window_before_it() -> None:
    clip = _clip(0.0, [0.0, 5.0, 5.02], [5.0, 5.0, 0.0], 10.02, 3)
    first, last = regrouped([clip], "window")
    assert (first.seconds, last.start_s, len(last.embeddings)) == (5.0, 5.0, 2)
    assert last.seconds == pytest.approx(5.02)
    assert has_tail([0.0, 0.01]) and not has_tail([0.0, 2.0]) and not has_tail([0.0])


def test_another_word_is_refused() -> None:
    with pytest.raises(SettingsError, match="choose minute, file, window"):
        regrouped(CLIPS, "hour")
