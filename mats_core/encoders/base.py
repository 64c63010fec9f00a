"""What the rest of the package needs of an encoder, and what all encoders share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from mats_core.audio.windows import pool_windows


class ClapEncoder(Protocol):
    """Text and audio in one space. `sample_rate` in Hz, `window_seconds` what it hears at once, `dim` of its space,
    `dtype` of its weights, `fingerprint` which encoder it is, the same on every device and in every number type.
    """

    sample_rate: int
    window_seconds: float
    dim: int
    dtype: torch.dtype
    fingerprint: str

    def pad(self, window: Any) -> Any:
        """Samples [T], numpy or tensor → [window samples]: cut, or padded by the encoder's own rule for short clips."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts → float32 [B, dim], unit, in the order given."""

    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[B, T] at `sample_rate`, int16 or float32 in [-1, 1] → float32 [B, dim], unit."""


def embed_captions(
    embed_text: Callable[[Sequence[str]], torch.Tensor], captions: Sequence[Sequence[str]]
) -> torch.Tensor:
    """What each sound's captions stand for: float32 [B, dim], unit; captions: one or more for each of B sounds.

    One caption is its own embedding. Several are those of a long sound's windows, and pooled as its windows are: their
    mean, normalised. embed_text: `ClapEncoder.embed_text`, which is given all of them at once.
    """
    embedded = embed_text([text for texts in captions for text in texts]).float().cpu().numpy()  # [texts, dim]
    ends = np.cumsum([len(texts) for texts in captions])
    parts = [embedded[end - len(texts) : end] for end, texts in zip(ends, captions, strict=True)]
    pooled = [part[0] if len(part) == 1 else pool_windows(part, np.ones(len(part))) for part in parts]
    return torch.from_numpy(np.stack(pooled))


def pad_waveform(window: Any, samples: int, rule: str) -> Any:
    """[T] → [samples], numpy or tensor: longer is cut, shorter is padded.

    Rules of `ClapFeatureExtractor`: repeat (and cut), repeatpad (whole copies, then zeros), pad (zeros).
    """
    if isinstance(window, torch.Tensor):
        return torch.from_numpy(pad_waveform(window.cpu().numpy(), samples, rule)).to(window.device)
    if len(window) >= samples:
        return window[:samples]
    if len(window) and rule == "repeat":
        return np.tile(window, math.ceil(samples / len(window)))[:samples]
    if len(window) and rule == "repeatpad":
        window = np.tile(window, samples // len(window))
    return np.pad(window, (0, samples - len(window)))


def as_float(samples: Any) -> Any:
    """Samples, numpy or tensor, as float32 in [-1, 1]; int16 is divided by 32768, which is exact."""
    if isinstance(samples, torch.Tensor):
        return samples.float() / 32768.0 if samples.dtype == torch.int16 else samples.float()
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768.0
    return samples.astype(np.float32, copy=False)


def stack_windows(windows: Sequence[np.ndarray], pad: Callable[[Any], Any], pinned: bool = False) -> torch.Tensor:
    """Windows [T], each int16 or float32, padded by an encoder's rule → [B, samples] for `embed_audio`.

    int16 where all are: they cross to the device in half the bytes, and become float32 there; padding repeats samples
    or adds zeros, so the order of the two makes no difference. pinned: in memory that a GPU copies from by itself.
    Safe in a thread of its own.
    """
    found = [np.asarray(window) for window in windows]
    if any(window.dtype != np.int16 for window in found):
        found = [as_float(window) for window in found]
    padded = [pad(window) for window in found]  # each [samples]
    number = torch.int16 if padded[0].dtype == np.int16 else torch.float32
    # note: torch keeps pinned memory for the next batch, and does not give it out before it has been copied
    stacked = torch.empty(len(padded), len(padded[0]), dtype=number, pin_memory=pinned)
    np.stack(padded, out=stacked.numpy())
    return stacked


def on_device(waveforms: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[B, T] int16 or float32 → float32 [B, T] in [-1, 1] on `device`, where it is converted."""
    return as_float(waveforms.to(device, non_blocking=waveforms.is_pinned()))


def embed_by_length(
    ids: Sequence[Sequence[int]],
    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    dim: int,
    filler: int,
    batch_size: int,
    device: torch.device,
) -> torch.Tensor:
    """Token ids of texts → float32 [N, dim] on `device`, in the order given.

    `embed` takes ids int64 [B, T], padded on the right with `filler`, and lengths int64 [B], and gives [B, dim]. Texts
    of like length go together, so that little is padding.
    """
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    out = torch.empty(len(ids), dim, device=device)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        lengths = torch.tensor([len(ids[row]) for row in rows])
        tokens = pad_sequence([torch.tensor(ids[row]) for row in rows], True, filler)  # [B, T]
        out[rows] = embed(tokens.to(device), lengths.to(device)).float()
    return out
