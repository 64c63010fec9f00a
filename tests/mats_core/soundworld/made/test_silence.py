"""Clips within silence: what is made, and the table that is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.audio.levels import is_silent, levels_of
from mats_core.model.model import load_model
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.made import silence


@pytest.mark.parametrize("level", [None, -60.0, -80.0])
def test_a_minute_is_noise_of_its_level_with_the_clip_in_it(level: float | None) -> None:
    clip = 0.5 * np.sin(np.arange(4 * SAMPLE_RATE) * 0.3).astype(np.float32)
    minute = silence._minute(clip, level, 3)
    assert len(minute) == 60 * SAMPLE_RATE
    loud = [not is_silent(second, -40.0) for second in minute.reshape(60, -1)]
    assert 4 <= sum(loud) <= 5
    quiet = silence._minute(np.zeros(0, np.float32), level, 3)
    assert levels_of(quiet).rms_dbfs == pytest.approx(-120.0 if level is None else level, abs=0.2)


@pytest.mark.long
def test_the_numbers_are_measured_and_told() -> None:
    found = silence.silence_numbers(load_model("builtin", device="cpu"), 4, print)
    assert found["digital silence"]["left out"]["label_f1"] > found["digital silence"]["weighed"]["label_f1"]
    assert found["digital silence"]["alone_is_silence"] == 1.0 and found["noise at -60 dBFS"]["alone_is_silence"] == 0.0
    assert silence.silence_table(found).count("\n| ") == 5
