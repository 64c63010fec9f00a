"""What the rest of the package needs of an encoder, and what all encoders share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


class ClapEncoder(Protocol):
    """Text and audio in one space. `sample_rate` in Hz, `window_seconds` what it hears at once, `dim` of its space,
    `fingerprint` which encoder it is, the same on every device and in every number type.
    """

    sample_rate: int
    window_seconds: float
    dim: int
    fingerprint: str

    def pad(self, window: Any) -> Any:
        """Samples [T], numpy or tensor → [window samples]: cut, or padded by the encoder's own rule for short clips."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts → float32 [B, dim], unit, in the order given."""

    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """float32 [B, T] at `sample_rate` → float32 [B, dim], unit."""


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
