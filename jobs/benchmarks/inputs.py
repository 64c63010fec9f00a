"""What benchmarks are fed with, the same for everyone who is measured: clips, captions, models of random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

if TYPE_CHECKING:
    import torch

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


def world_captions(count: int, seed: int = 0) -> Iterator[str]:
    """`count` distinct captions: one to three sounds in any layout, pitch and rate told or not."""
    from mats_core.soundworld.kinds import KINDS
    from mats_core.soundworld.language import Content, Sound, caption

    rng = np.random.default_rng(seed)
    kinds: list[str] = list(KINDS)
    seen: set[str] = set()
    layouts = {1: ("single",), 2: ("together", "sequence"), 3: ("together", "sequence", "background")}
    told = {"pitch": (None, "low", "high"), "rate": (None, "slow", "fast")}
    while len(seen) < count:
        size = 1 + int(rng.choice(3, p=(0.1, 0.3, 0.6)))
        chosen = rng.choice(len(kinds), size, replace=False)
        words = rng.integers(0, 3, (size, 2))
        sounds = tuple(
            Sound(kinds[kind], told["pitch"][pitch], told["rate"][rate])
            for kind, (pitch, rate) in zip(chosen, words, strict=True)
        )
        text = caption(Content(layouts[size][int(rng.integers(len(layouts[size])))], sounds), rng)
        if text not in seen:
            seen.add(text)
            yield text


def write_captions(path: Path, count: int, seed: int = 0) -> None:
    """A corpus of `count` distinct captions as JSON lines; left alone where it is there already."""
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with draft.open("w") as file:
        for text in world_captions(count, seed):
            file.write(json.dumps({"caption": text}) + "\n")
    draft.rename(path)


def lift(dim: int, target: int, seed: int = 0) -> np.ndarray:
    """A fixed map float32 [dim, target] with orthonormal rows: lengths and angles stay as they are."""
    draws = np.random.default_rng(seed).standard_normal((target, dim))
    return np.ascontiguousarray(np.linalg.qr(draws)[0].T, dtype=np.float32)


def random_llama(device: torch.device, **sizes: Any) -> Any:
    """A `LlamaForCausalLM` of random weights, made on `device`: bfloat16 on a GPU, float32 on a CPU.

    `sizes` are those of `LlamaConfig`, whose defaults are the 7 B model's.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            return LlamaForCausalLM(LlamaConfig(**sizes))
    finally:
        torch.set_default_dtype(before)


def random_clap(file: Path) -> Path:
    """Microsoft CLAP with fresh weights in the official format; left alone where it is there already."""
    import torch

    from mats_core.encoders.msclap import build_model, package_settings

    if not file.exists():
        torch.manual_seed(0)
        torch.save({"model": build_model(package_settings()).state_dict()}, file)
    return file
