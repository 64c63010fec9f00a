"""A sound as CLAP hears it: decoded, cut into clips of about a minute, embedded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias

import numpy as np
import torch

from mats_core.audio.levels import SILENCE_DBFS, is_silent
from mats_core.audio.windows import is_long
from mats_core.batches import in_batches, raised
from mats_core.errors import SettingsError

if TYPE_CHECKING:
    from mats_core.audio.file import AudioInfo
    from mats_core.audio.levels import Levels
    from mats_core.audio.sources import Stretch
    from mats_core.encoders.base import ClapEncoder

Waveform: TypeAlias = np.ndarray | torch.Tensor
Sound: TypeAlias = str | bytes | os.PathLike[str] | BinaryIO | tuple[Waveform, int] | tuple[int, Waveform] | Waveform
"""A path or URI, an open file, samples and their rate in either order, or samples alone."""


@dataclass(frozen=True)
class Clip:
    """A chunk of sound as CLAP hears it, to be asked as often as one likes.

    embeddings: float32 [W, D], a unit vector for each window, before Santa; weights: float32 [W], the seconds that
    each window stands for, 0 where it is silent; starts: float64 [W], where each begins, in seconds of the clip;
    seconds: how long the clip is; window_s: how long a window is; start_s: where the clip begins in its file; complete,
    lost_s and levels: see `Answer`.
    """

    embeddings: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    seconds: float
    window_s: float
    start_s: float = 0.0
    complete: bool = True
    lost_s: float = 0.0
    levels: Levels | None = field(default=None, repr=False)

    @property
    def silent(self) -> bool:
        """Whether all of its windows are."""
        return not self.weights.any()

    @property
    def long(self) -> bool:
        """Whether it is heard as a mean of windows (`is_long`)."""
        return is_long(self.weights)

    @property
    def pooled(self) -> np.ndarray:
        """The clip's own embedding: the weighted mean of its windows that are not silent, float32 [D] unit."""
        from mats_core.audio.windows import pool_windows

        return pool_windows(self.embeddings, np.ones_like(self.weights) if self.silent else self.weights)

    @property
    def times(self) -> list[tuple[float, float]]:
        """(start, end) of each window, in seconds of the file."""
        starts = (float(start) for start in self.starts)
        return [(self.start_s + at, self.start_s + min(at + self.window_s, self.seconds)) for at in starts]


class HearingModel(Protocol):
    """What hearing needs of a model."""

    encoder: ClapEncoder | None

    def stack_windows(self, windows: Sequence[np.ndarray]) -> torch.Tensor:
        """Windows [T] → [W, window samples], padded; safe in a thread."""

    def embed_windows(self, windows: Sequence[np.ndarray] | torch.Tensor) -> np.ndarray:
        """Windows [T], or what `stack_windows` made of them → unit embeddings float32 [W, D]."""


def embed_clips(
    model: HearingModel,
    sounds: Sequence[tuple[float, np.ndarray]],
    batch_size: int = 16,
    silence_dbfs: float = SILENCE_DBFS,
) -> list[Clip | Exception]:
    """A Clip of each sound, or the exception that the model ended with on it: one sound never costs the others.

    sounds: (start in its file in seconds, samples [T], int16 or float32 in [-1, 1], mono at the encoder's rate), T at
    least 1. silence_dbfs: the level below which a window is silent and weighs nothing; at -120 none is. The windows of
    all sounds go through the encoder `batch_size` at a time; where a batch fails, each window of it goes alone. Raises
    SettingsError where the model has no encoder.
    """
    from mats_core.audio.windows import windows

    encoder = model_encoder(model)
    rate, window_s = encoder.sample_rate, encoder.window_seconds
    cuts = [windows(len(samples), rate, window_s) for _, samples in sounds]
    pieces = [samples[w.start : w.stop] for (_, samples), cut in zip(sounds, cuts, strict=True) for w in cut]
    vectors = iter(in_batches(pieces, batch_size, model.embed_windows, model.stack_windows))
    found: list[Clip | Exception] = []
    for (start_s, samples), cut in zip(sounds, cuts, strict=True):
        own = [next(vectors) for _ in cut]
        error = next((each for each in own if isinstance(each, Exception)), None)
        if error is not None:
            found.append(error)
            continue
        heard = [not is_silent(samples[window.start : window.stop], silence_dbfs) for window in cut]
        weights = np.array([window.weight * loud for window, loud in zip(cut, heard, strict=True)], np.float32)
        starts = np.array([window.start / rate for window in cut])
        stacked = np.stack(own).astype(np.float32, copy=False)
        found.append(Clip(stacked, weights, starts, len(samples) / rate, window_s, start_s))
    return found


def embed_sound(
    model: HearingModel,
    source: Sound,
    batch_size: int = 16,
    sample_rate: int | None = None,
    stretch: Stretch | None = None,
    info: AudioInfo | None = None,
) -> list[Clip]:
    """Decode and embed a sound, about a minute a clip, to be asked with `ask_about` as often as one likes.

    source, sample_rate: see `Answering.answers`. stretch: the part of it that is heard. info: its header, where that
    was read already. Raises AudioError for what cannot be decoded, SettingsError where the model has no encoder.
    """
    from mats_core.audio.file import AudioError
    from mats_core.audio.sources import decoded_chunks

    encoder = model_encoder(model)
    sounds = decoded_chunks(source, encoder.sample_rate, encoder.window_seconds, sample_rate, stretch, info)
    if not sounds:
        raise AudioError("empty_audio", "there is no sound in it")
    clips = raised(embed_clips(model, [(start, heard.samples) for start, heard in sounds], batch_size))
    return [
        replace(clip, complete=heard.complete, lost_s=heard.lost_s, levels=heard.levels)
        for clip, (_, heard) in zip(clips, sounds, strict=True)
    ]


def model_encoder(model: HearingModel) -> ClapEncoder:
    """The model's encoder; SettingsError where it has none."""
    if model.encoder is None:
        raise SettingsError("model", "it has no encoder", "give embeddings as input, or choose a model with an encoder")
    return model.encoder
