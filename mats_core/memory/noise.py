"""Noise on embeddings, for training and for Santa's neighbours; and how much of it pairs of sound and caption ask for.

The noise bridges the gap between CLAP's text and audio embeddings (MATS paper, section 3.2). `keyed_normal`
draws it from a counter, not from a stream, so that a row's draw never depends on its batch or on a restart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads consecutive counters


def inject_noise(
    embedding: torch.Tensor,
    variance: float,
    noise: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Normalise, add zero-mean Gaussian noise, normalise again.

    embedding: [..., D], any length. variance: of each coordinate (standard deviation is its square root).
    noise: standard-normal draws [..., D]; drawn from `generator` when not given. Returns float32 [..., D], unit.
    """
    unit = F.normalize(embedding.float(), dim=-1)
    if variance < 0:
        raise ValueError(f"variance must not be negative, got {variance}")
    if variance == 0:
        return unit
    if noise is None:
        device = unit.device if generator is None else generator.device
        noise = torch.randn(unit.shape, generator=generator, device=device)
    return F.normalize(unit + math.sqrt(variance) * noise.to(unit), dim=-1)


def as_uniform(normal: torch.Tensor) -> torch.Tensor:
    """Standard-normal draws of any shape as uniform ones of the same variance, 1: between -√3 and √3, in their order.

    The release has a switch for uniform noise that its code never reads.
    """
    return torch.erf(normal * math.sqrt(0.5)) * math.sqrt(3.0)


@dataclass(frozen=True)
class NoiseEstimate:
    """How far the two embeddings of a pair lie apart, as the variance of noise that reaches as far.

    variance: the square of the mean largest difference (the paper's, and CapDec's before it: the mean infinity norm is
    the standard deviation), standard_error: of that variance over pairs; mean_square: the mean squared difference a
    dimension; centred: the same without the mean difference of all pairs; cosine: mean of the pairs.
    """

    pairs: int
    variance: float
    standard_error: float
    mean_square: float
    centred: float
    cosine: float


def estimate_noise(audio: torch.Tensor, text: torch.Tensor) -> NoiseEstimate:
    """The estimate of pairs: audio and text [N, D], row i of each a pair, normalised here (MATS paper, section 3.2).

    Raises ValueError for tables of other shapes, and fewer than two pairs.
    """
    if audio.shape != text.shape or audio.ndim != 2 or len(audio) < 2:
        raise ValueError(f"{list(audio.shape)} and {list(text.shape)} are no two or more pairs [N, D]")
    sounds, texts = (F.normalize(each.double(), dim=-1) for each in (audio, text))
    apart = sounds - texts  # [N, D]
    largest = apart.abs().amax(dim=-1)  # [N]
    mean = float(largest.mean())
    error = float(largest.std()) / math.sqrt(len(largest))
    return NoiseEstimate(
        len(apart), mean**2, 2 * mean * error, float(apart.square().mean()),
        float((apart - apart.mean(dim=0)).square().sum()) / ((len(apart) - 1) * apart.shape[1]),
        float((sounds * texts).sum(dim=-1).mean()),
    )  # fmt: skip


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Scramble 32-bit values held in int64. Both factors are below 2^31, so no product leaves int64."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


def keyed_normal(seed: int, rows: torch.Tensor, dim: int, stream: int = 0) -> torch.Tensor:
    """Standard-normal draws that are a function of (seed, stream, row, column) alone.

    rows: int64 [...]. Returns float32 [..., dim] on the device of `rows`. Integer hash, then Box-Muller in
    float64, so that CPU and GPU round to the same float32 numbers.
    """
    rows = rows.to(torch.int64)
    low, high = rows & _MASK, (rows >> 32) & _MASK
    lanes = []
    for lane in (1, 2):  # two independent 32-bit states a row: 64 bits, so rows do not collide
        state = _mix(torch.full_like(low, (seed * 2 + lane) & _MASK))
        state = _mix(state ^ ((seed >> 31) & _MASK) ^ ((stream * _GOLDEN) & _MASK))
        state = _mix(state ^ low)
        lanes.append(_mix((state + high * _GOLDEN) & _MASK))
    pairs = (dim + 1) // 2
    columns = _mix((torch.arange(1, pairs + 1, device=rows.device) * _GOLDEN) & _MASK)
    u1, u2 = (_mix((lane[..., None] + columns) & _MASK).double() for lane in lanes)
    radius = torch.sqrt(-2.0 * torch.log((u1 + 0.5) / 2**32))  # u1 + 0.5: never the logarithm of zero
    angle = (2.0 * math.pi / 2**32) * u2
    both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return both.flatten(-2)[..., :dim].float()
