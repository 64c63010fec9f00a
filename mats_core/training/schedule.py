"""What a training step does, as pure functions of (seed, step, index in the global batch): no torch, no cluster.

Every worker draws the whole global batch for itself and takes its share, so the number of workers, a restart or a
failed worker never changes what is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import SettingsError

_WORDING_STREAM = 0x9E3779B97F4A7C15  # apart from the stream that draws rows
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingSettings(BaseModel):
    """How the mapper and the adapter are trained. Defaults are the reference's."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    steps: int = Field(90_000, ge=1)
    batch_size: int = Field(48, ge=1, description="samples drawn a step, over all workers and accumulated batches")
    batch_tokens: int | None = Field(
        None, ge=1, description="most tokens a step, prompts included: samples beyond are left out; null: no limit"
    )
    micro_batch_tokens: int = Field(
        16_384, ge=1, description="most tokens, padding included, that go through the LLM at once"
    )
    draw: Literal["sample", "batch"] = Field(
        "sample", description="draw a data set for each sample, or one for the whole batch as the reference does"
    )
    learning_rate: float = Field(3e-5, gt=0, description="at the end of warm-up")
    warmup_steps: int = Field(
        3000, ge=0, description="of `mats train`, where it is not given: steps / 30, at most 3000"
    )
    warmup_start: float = Field(1e-7, ge=0, description="learning rate of the first step")
    final_learning_rate: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.05, ge=0, description="on matrices only")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; null: not clipped")
    noise_variance: float = Field(0.015, ge=0, description="of each coordinate of the noise on embeddings")
    noise: Literal["gaussian", "uniform"] = Field(
        "gaussian", description="uniform: each coordinate between ±√(3 · noise_variance), which is as much noise"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    train: Literal["mapper+adapter", "mapper"] = "mapper+adapter"
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: orthogonalised steps on the matrices of hidden layers, AdamW on the rest"
    )
    gradient_checkpointing: bool = Field(False, description="keep less, compute more: for LLMs that hardly fit")


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up from `warmup_start`, then a cosine to `final_learning_rate`; step counts from 0."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if step < warmup:
        return settings.warmup_start + (peak - settings.warmup_start) * step / warmup
    progress = min((step - warmup) / max(settings.steps - warmup, 1), 1.0)
    low = settings.final_learning_rate
    return low + (peak - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


def sample_batch(
    seed: int,
    step: int,
    batch_size: int,
    sizes: Sequence[int],
    ratios: Sequence[float],
    per: Literal["sample", "batch"] = "sample",
) -> list[tuple[int, int]]:
    """(data set, row) of each sample of a step's batch; a pure function, so a restart draws the same.

    sizes: rows a data set; ratios: weights, any scale. per="batch" draws one data set for the whole batch, as the
    reference does; "sample" draws for each. Rows are drawn with replacement.
    """
    weights = np.asarray(ratios, dtype=np.float64)
    counts = np.asarray(sizes, dtype=np.int64)
    if len(weights) != len(counts) or not len(counts) or (weights < 0).any() or weights.sum() <= 0:
        problem = f"{list(ratios)} cannot be drawn by"
        raise SettingsError("ratios", problem, f"give {len(counts)} weights, none negative and not all zero")
    if (counts[weights > 0] < 1).any():
        problem = f"a data set that is drawn from has no row (rows: {list(sizes)})"
        raise SettingsError("sizes", problem, "give it at least one, or the ratio 0")
    uniform = _draws(seed, step).random((batch_size, 2))
    if per == "batch":
        uniform[:, 0] = uniform[0, 0]
    bounds = np.cumsum(weights) / weights.sum()
    chosen = np.minimum(np.searchsorted(bounds, uniform[:, 0], side="right"), np.flatnonzero(weights)[-1])
    rows = np.minimum((uniform[:, 1] * counts[chosen]).astype(np.int64), counts[chosen] - 1)
    return list(zip(chosen.tolist(), rows.tolist(), strict=True))


def sample_wordings(seed: int, step: int, batch_size: int) -> list[int]:
    """A draw for each sample of a step, for `prompts.training_prompt`: which wording its task is asked in."""
    return _draws(seed, step ^ _WORDING_STREAM).integers(0, 2**31, batch_size).tolist()


def _draws(seed: int, step: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))


def keep_within(lengths: Sequence[int], budget: int | None) -> int:
    """How many samples, from the first on, a step of at most `budget` tokens takes; at least one."""
    if budget is None:
        return len(lengths)
    return max(1, int(np.searchsorted(np.cumsum(lengths), budget, side="right")))


def plan_step(lengths: Sequence[int], shards: int, micro_batch_tokens: int) -> list[list[list[int]]]:
    """A step's samples in shards of about equal work, each cut into micro-batches of like length.

    lengths: tokens a sample. Returns [shard][micro-batch][sample index]; a micro-batch's rows, padded to its
    longest, hold at most `micro_batch_tokens` (one sample alone may exceed them). The plan depends on nothing
    else: fewer workers than shards take several shards each, and every sum over micro-batches stays the same.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    plan: list[list[list[int]]] = []
    for shard in range(shards):
        batches: list[list[int]] = []
        for index in order[shard::shards]:
            longest = lengths[batches[-1][0]] if batches else 0
            if not batches or (len(batches[-1]) + 1) * longest > micro_batch_tokens:
                batches.append([])
            batches[-1].append(index)
        plan.append(batches)
    return plan


def dropout_key(seed: int, step: int, shard: int, micro_batch: int) -> int:
    """The seed of one micro-batch's dropout, below 2^63."""
    state = np.random.SeedSequence([seed, step, shard, micro_batch]).generate_state(1, np.uint64)
    return int(state[0]) >> 1
