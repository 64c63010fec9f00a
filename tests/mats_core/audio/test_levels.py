"""How loud a file is, told by FFmpeg's own measurement where it is installed, and by arithmetic."""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mats_core.audio.decode import Decoded, decode
from mats_core.audio.levels import FLOOR_DBFS, is_silent, levels_of

RATE = 44100


def tone(dbfs: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """A sine of that peak, float32 [T]."""
    wave = np.sin(2 * np.pi * 441.0 * np.arange(round(seconds * rate)) / rate)
    return (wave * 10 ** (dbfs / 20)).astype(np.float32)


def heard(samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT", **stretch: float) -> Decoded:
    """Samples [T] or [T, C], through a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    file.seek(0)
    return decode(file, sample_rate=48000, **stretch)


@pytest.mark.parametrize("dbfs", [-1.0, -20.0, -60.0])
@pytest.mark.parametrize("rate", [44100, 48000, 8000])
def test_a_sine_has_its_peak_and_three_decibels_less_on_average(dbfs: float, rate: int) -> None:
    levels = heard(tone(dbfs, rate=rate), rate).levels
    assert levels.peak_dbfs == pytest.approx(dbfs, abs=0.1)
    assert levels.rms_dbfs == pytest.approx(dbfs - 3.01, abs=0.1)
    assert levels.clipped == 0.0 and not levels.cancels


def test_levels_are_of_the_stretch_that_was_asked_for() -> None:
    """A loud second between two quiet ones."""
    sound = np.concatenate([tone(-50, 1.0), tone(-6, 1.0), tone(-50, 1.0)])
    loud, quiet = heard(sound, start_s=1.0, duration_s=1.0).levels, heard(sound, start_s=2.0, duration_s=1.0).levels
    assert loud.rms_dbfs == pytest.approx(-9.01, abs=0.1)
    assert quiet.peak_dbfs == pytest.approx(-50.0, abs=0.1)


def test_digital_silence_has_the_lowest_level_and_a_constant_offset_no_sound() -> None:
    assert heard(np.zeros(RATE, np.float32)).levels.rms_dbfs == FLOOR_DBFS
    offset = heard(np.full(RATE, 0.25, np.float32)).levels
    assert offset.peak_dbfs == pytest.approx(-12.04, abs=0.01) and offset.rms_dbfs < -100
    tone_on_it = heard(0.25 + tone(-60)).levels
    assert tone_on_it.rms_dbfs == pytest.approx(-63.01, abs=0.1)


def test_clipped_is_the_share_of_samples_at_full_scale() -> None:
    square = np.where(np.arange(RATE) % 100 < 50, 1.0, -1.0).astype(np.float32)
    assert heard(square).levels.clipped == 1.0
    assert heard(square, subtype="PCM_16").levels.clipped == 1.0
    half = np.concatenate([square, tone(-6, 1.0)])
    assert heard(half).levels.clipped == pytest.approx(0.5, abs=0.001)
    beside = np.stack([square, tone(-6, 1.0)], axis=1)
    assert heard(beside).levels.clipped == pytest.approx(0.5, abs=0.001)


def test_channels_that_cancel_each_other_out_are_heard_and_said() -> None:
    """Stereo in opposite phase is loud, though its mean is silence; one silent channel halves the other."""
    loud = tone(-6)
    opposite = heard(np.stack([loud, -loud], axis=1))
    assert opposite.levels.rms_dbfs == pytest.approx(-9.01, abs=0.1)
    assert np.abs(opposite.samples).max() > 16000
    assert "cancel each other out" in opposite.remark
    half = heard(np.stack([loud, np.zeros_like(loud)], axis=1))
    assert half.levels.rms_dbfs == pytest.approx(-9.01 - 6.02, abs=0.1) and not half.remark
    both = heard(np.stack([loud, loud], axis=1))
    assert both.levels.rms_dbfs == pytest.approx(-9.01, abs=0.1) and not both.remark


def test_what_is_not_finite_is_lost_and_no_silence() -> None:
    sound = tone(-20, 4.0)
    sound[RATE : 2 * RATE] = np.nan
    found = heard(sound)
    assert not found.complete and found.lost_s == pytest.approx(1.0, abs=0.001)
    assert heard(sound, start_s=2.5, duration_s=1.0).complete


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize(("rms", "silent"), [(-80.0, True), (-70.5, True), (-69.5, False), (-60.0, False)])
def test_silence_is_below_a_level_whatever_the_offset(rms: float, silent: bool, offset: float) -> None:
    rng = np.random.default_rng(3)
    noise = (rng.standard_normal(7 * RATE) * 10 ** (rms / 20) + offset).astype(np.float32)
    assert is_silent(noise) == silent
    assert is_silent(np.rint(noise * 32768).astype(np.int16)) == silent


def test_a_click_in_silence_is_heard_and_nothing_is_below_the_lowest_level() -> None:
    click = np.zeros(RATE, np.int16)
    assert is_silent(click) and not is_silent(click, FLOOR_DBFS)
    click[RATE // 2] = 32767
    assert not is_silent(click)
    assert levels_of(click).rms_dbfs == pytest.approx(-10 * math.log10(RATE), abs=0.1)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg is not installed")
def test_ffmpeg_measures_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    soundfile.write(tmp_path / "noise.wav", rng.normal(0.0, 0.05, 3 * 48000), 48000, subtype="PCM_16")
    command = ["ffmpeg", "-hide_banner", "-i", str(tmp_path / "noise.wav"), "-af", "astats", "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    with (tmp_path / "noise.wav").open("rb") as file:
        levels = decode(file, sample_rate=48000).levels
    for name, ours in (("Peak level dB", levels.peak_dbfs), ("RMS level dB", levels.rms_dbfs)):
        found = re.search(rf"{name}: (\S+)", told)
        assert found is not None and ours == pytest.approx(float(found.group(1)), abs=0.05)
