"""Recipes made audible: events, levels, a room, and background noise."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
from mats_core.soundworld.recipe import Recipe, sample_recipe


def render(recipe: Recipe) -> np.ndarray:
    """A recipe synthesised: float32 [T] mono at 16 kHz, within [-1, 1]; the same recipe gives the same samples."""
    rng = np.random.default_rng([recipe.seed, 7])
    n = round(recipe.seconds * SAMPLE_RATE)
    dry = np.zeros(n, dtype=np.float32)
    for event in recipe.events:
        start = int(event.start_s * SAMPLE_RATE)
        length = min(n - start, max(SAMPLE_RATE // 4, int(event.duration_s * SAMPLE_RATE)))
        wave = KINDS[event.kind].render(rng, length, event.hertz, event.per_second)
        fade = min(length // 2, SAMPLE_RATE // 50)
        wave[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        dry[start : start + length] += _at_level(wave, event.level_db)
    wet = _room(rng, dry, recipe.reverb_s)
    level = np.sqrt(np.mean(wet**2)) + 1e-9
    out = wet + _background(rng, n, recipe.noise_color) * level * 10 ** (recipe.noise_db / 20)
    peak = np.abs(out).max() + 1e-9
    return (out / peak * 10 ** (recipe.gain_db / 20)).astype(np.float32)


def render_scene(seed: int, minutes: int = 3, change_s: float = 10.0) -> tuple[np.ndarray, list[Recipe]]:
    """A long scene whose sounds change every ``change_s`` seconds.

    Each minute keeps to three kinds of sound, in changing combinations, and the next minute has others.
    Returns float32 [T] at 16 kHz, and the recipe of every stretch in order.
    """
    rng = np.random.default_rng([seed, 23])
    names = list(rng.permutation(list(KINDS)))
    pieces, recipes = [], []
    for minute in range(minutes):
        kinds = [str(k) for k in names[3 * minute : 3 * minute + 3]]
        for stretch in range(round(60 / change_s)):
            recipe = sample_recipe([seed, 29, minute, stretch], seconds=change_s, kinds=kinds)
            recipes.append(recipe)
            pieces.append(render(recipe))
    return np.concatenate(pieces), recipes


def _at_level(wave: np.ndarray, level_db: float) -> np.ndarray:
    """Scale so that the loudest 200 ms have an RMS of ``level_db`` (short sounds are not drowned by long ones)."""
    block = SAMPLE_RATE // 5
    padded = np.pad(wave, (0, -len(wave) % block)).reshape(-1, block)
    loudest = np.sqrt((padded**2).mean(axis=1).max()) + 1e-9
    return wave * np.float32(0.1 * 10 ** (level_db / 20) / loudest)


def _room(rng: np.random.Generator, dry: np.ndarray, seconds: float) -> np.ndarray:
    """Convolve with exponentially decaying noise of the given reverberation time (RT60)."""
    if seconds <= 0:
        return dry
    m = int(seconds * SAMPLE_RATE)
    tail = rng.standard_normal(m, dtype=np.float32) * np.exp(-6.9 * np.arange(m, dtype=np.float32) / m)
    tail *= 0.5 / np.sqrt((tail**2).sum())
    tail[0] += 1.0
    return fftconvolve(dry, tail)[: len(dry)].astype(np.float32)


def _background(rng: np.random.Generator, n: int, color: float) -> np.ndarray:
    """Noise of unit RMS whose spectrum falls by ``color`` × 6 dB an octave (0 white, 1 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    f = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 40.0)
    x = np.fft.irfft(spectrum * f**-color, n)
    return (x / (np.sqrt(np.mean(x**2)) + 1e-9)).astype(np.float32)
