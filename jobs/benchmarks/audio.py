"""The files a benchmark answers: synthesised once, the same for everyone who is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
DISTINCT = 60
FOLDER_SIZE = 500


def write_clips(folder: Path, count: int, longest_s: float, seed: int = 0) -> float:
    """Write `count` WAV files of longest_s/5 to longest_s seconds; returns their seconds in all.

    Cut and scaled from DISTINCT sounds of the embedded world, since synthesis itself is slow.
    """
    draw = np.random.default_rng(seed)
    sounds = [_sound(seed * 1000 + index, round(longest_s * RATE)) for index in range(min(count, DISTINCT))]
    seconds = 0.0
    for index in range(count):
        sound = sounds[index % len(sounds)]
        length = max(1, round(draw.uniform(longest_s / 5, longest_s) * RATE))
        at = int(draw.integers(0, len(sound) - length + 1))
        place = folder / f"{index // FOLDER_SIZE:04d}"
        place.mkdir(parents=True, exist_ok=True)
        clip = sound[at : at + length] * draw.uniform(0.3, 1.0)
        soundfile.write(place / f"{index:06d}.wav", clip, RATE, subtype="PCM_16")
        seconds += length / RATE
    return seconds


def _sound(seed: int, samples: int) -> np.ndarray:
    """float32 [samples] of one recipe after the other."""
    from mats_core.soundworld.recipe import sample_recipe
    from mats_core.soundworld.synth import render

    parts: list[np.ndarray] = []
    while sum(len(part) for part in parts) < samples:
        parts.append(np.asarray(render(sample_recipe(10_000_000 + seed * 100 + len(parts))), np.float32))
    return np.concatenate(parts)[:samples]
