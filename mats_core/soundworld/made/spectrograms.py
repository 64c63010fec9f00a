"""Sounds of many clips of the embedded world, synthesised in parallel, and their log-mel spectrograms."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render

WINDOW_SECONDS = 5
HOP = 320
FFT = 1024
FEW_CLIPS = 200  # which other processes would not make sooner
MELS = 64
LOW_HZ, HIGH_HZ = 50, 7800
FRAMES = WINDOW_SECONDS * SAMPLE_RATE // HOP + 1


def feature_extractor_config() -> dict[str, object]:
    """What ``preprocessor_config.json`` of the embedded CLAP says (a ``ClapFeatureExtractor``)."""
    return {
        "feature_extractor_type": "ClapFeatureExtractor", "feature_size": MELS, "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP, "fft_window_size": FFT, "max_length_s": WINDOW_SECONDS, "frequency_min": LOW_HZ,
        "frequency_max": HIGH_HZ, "truncation": "rand_trunc", "padding": "repeatpad",
    }  # fmt: skip


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    made = mel_filter_bank(FFT // 2 + 1, MELS, LOW_HZ, HIGH_HZ, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return made.astype(np.float32)


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Log-mel power in dB, as the embedded CLAP's feature extractor computes it.

    waveform: float32 [T] at 16 kHz, at most one window; shorter ones are repeated, then zero-padded.
    Returns float32 [frames, mels].
    """
    import scipy.fft

    n = WINDOW_SECONDS * SAMPLE_RATE
    waveform = np.tile(waveform, max(1, n // len(waveform)))[:n]
    padded = np.pad(np.pad(waveform, (0, n - len(waveform))), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    power = np.abs(scipy.fft.rfft(frames * hann, axis=1)) ** 2
    return 10 * np.log10(np.maximum(1e-10, power.astype(np.float32) @ _filters()))


def _one(job: tuple[str, int]) -> np.ndarray:
    return log_mel(render(clip_recipe(*job))).astype(np.float16)


def _samples(job: tuple[str, int]) -> np.ndarray:
    """As sound travels between the stages of a run: int16 [T], at most a window."""
    waveform = render(clip_recipe(*job))
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)[: WINDOW_SECONDS * SAMPLE_RATE]


def mel_spectrograms(split: str, count: int, start: int = 0, processes: int | None = None) -> Iterator[np.ndarray]:
    """Yield float16 [frames, mels] of recipes ``start … start + count`` of a split, in order."""
    yield from _in_parallel(_one, [(split, i) for i in range(start, start + count)], processes)


def waveforms(split: str, count: int, processes: int | None = None) -> Iterator[np.ndarray]:
    """Yield the sounds of a split's first recipes, int16 [T] at SAMPLE_RATE, in order."""
    jobs = [(split, i) for i in range(count)]
    yield from _in_parallel(_samples, jobs, processes) if count > FEW_CLIPS else map(_samples, jobs)


def _in_parallel(
    make: Callable[[tuple[str, int]], np.ndarray], jobs: list[tuple[str, int]], processes: int | None
) -> Iterator[np.ndarray]:
    # note: a worker is ended by SIGTERM, which the command line has made a Ctrl-C
    with multiprocessing.get_context("fork").Pool(processes, signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:
        yield from pool.imap(make, jobs, chunksize=32)


def cached_mels(folder: Path, split: str, count: int, log: Callable[[str], None] = print) -> np.ndarray:
    """Spectrograms float16 [count, frames, mels] of a split's first recipes, made once and kept in ``folder``."""
    path = folder / f"mels-{split}-{count}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, "w+", np.float16, (count, FRAMES, MELS))
        for i, mel in enumerate(mel_spectrograms(split, count)):
            out[i] = mel
            if (i + 1) % 2000 == 0:
                log(f"clips {split} {i + 1}/{count}")
        out.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")
