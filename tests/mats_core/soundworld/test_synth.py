"""Recipes and scenes made audible: pitch, rate, level, and the same samples each time."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
from mats_core.soundworld.recipe import Event, Recipe
from mats_core.soundworld.synth import render, render_scene
from tests.mats_core.soundworld.test_recipe import one_event


def strongest_hertz(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(waveform))


def test_a_tone_sounds_at_its_pitch() -> None:
    for pitch in (0.0, 0.4, 1.0):
        recipe = one_event("tone", pitch=pitch)
        assert strongest_hertz(render(recipe)) == pytest.approx(recipe.events[0].hertz, rel=0.02)


def test_an_alarm_beeps_at_its_rate() -> None:
    recipe = one_event("alarm", rate=0.0)  # 1.8 beeps a second, for 4 s
    loud = np.abs(render(recipe)) > 0.2
    blocks = loud[: len(loud) // 160 * 160].reshape(-1, 160).any(axis=1)
    beeps = int(np.sum(np.diff(blocks.astype(int)) == 1)) + int(blocks[0])
    assert beeps in (7, 8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_renders_the_same_sound_twice_and_stays_in_range(kind: str) -> None:
    recipe = one_event(kind, pitch=0.9, rate=0.1)
    waveform = render(recipe)
    assert waveform.shape == (4 * SAMPLE_RATE,)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    assert np.array_equal(waveform, render(recipe))


def test_background_noise_is_as_far_below_as_the_recipe_says() -> None:
    silent_at_end = Recipe(5, 4.0, "single", (Event("knock", 0.0, 1.0, 0.0, 0.5, 0.5),), 0.0, -10.0, 0.0, -1.0)
    waveform = render(silent_at_end)
    sound, rest = waveform[:SAMPLE_RATE], waveform[2 * SAMPLE_RATE :]
    whole = np.sqrt(np.mean(waveform**2))
    assert np.sqrt(np.mean(sound**2)) > np.sqrt(np.mean(rest**2))
    assert 20 * np.log10(np.sqrt(np.mean(rest**2)) / whole) == pytest.approx(-10.4, abs=0.5)  # 10 dB below the sound


def test_a_scene_changes_its_sounds_every_minute() -> None:
    waveform, recipes = render_scene(1, minutes=2, change_s=20.0)
    assert len(waveform) == 120 * SAMPLE_RATE
    assert len(recipes) == 6
    first = {k for r in recipes[:3] for k in r.labels()}
    second = {k for r in recipes[3:] for k in r.labels()}
    assert not first & second
