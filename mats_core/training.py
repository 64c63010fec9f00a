"""One training step, its schedule, its mixture and its noise: pure functions of (seed, step). No cluster here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import SettingsError
from mats_core.model import MatsModel
from mats_core.noise import inject_noise, keyed_normal

_NOISE_STREAM = 1  # Santa's noise is stream 0


class TrainingSettings(BaseModel):
    """How the mapper and the adapter are trained. Defaults are the reference's."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(90_000, ge=1)
    batch_size: int = Field(48, ge=1)
    learning_rate: float = Field(3e-5, gt=0, description="at the end of warm-up")
    warmup_steps: int = Field(3000, ge=0)
    warmup_start: float = Field(1e-7, ge=0, description="learning rate of the first step")
    final_learning_rate: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.05, ge=0, description="on matrices only")
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; null: not clipped")
    noise_variance: float = Field(0.015, ge=0)
    seed: int = Field(0, ge=0)
    train: Literal["mapper+adapter", "mapper"] = "mapper+adapter"


@dataclass
class StepResult:
    """What a step did. loss: mean over the batch's target tokens; learning_rate and grad_norm as used."""

    loss: float
    token_accuracy: float
    target_tokens: int
    learning_rate: float
    grad_norm: float

    @property
    def lr(self) -> float:
        return self.learning_rate


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
        raise SettingsError("ratios", list(ratios), f"{len(counts)} weights, none negative, not all zero")
    if (counts[weights > 0] < 1).any():
        raise SettingsError("sizes", list(sizes), "at least one row in each data set that is drawn from")
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))
    uniform = rng.random((batch_size, 2))
    if per == "batch":
        uniform[:, 0] = uniform[0, 0]
    bounds = np.cumsum(weights) / weights.sum()
    chosen = np.minimum(np.searchsorted(bounds, uniform[:, 0], side="right"), np.flatnonzero(weights)[-1])
    rows = np.minimum((uniform[:, 1] * counts[chosen]).astype(np.int64), counts[chosen] - 1)
    return list(zip(chosen.tolist(), rows.tolist(), strict=True))


def step_noise(seed: int, step: int, batch_size: int, dim: int) -> torch.Tensor:
    """Standard-normal draws float32 [batch_size, dim] of one step; a pure function."""
    return keyed_normal(seed, torch.arange(batch_size) + step * batch_size, dim, _NOISE_STREAM)


def make_optimizer(model: MatsModel, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over what is trained; the rest of the model is frozen. Weight decay falls on matrices only.

    Undoes a merged adapter, which cannot be trained.
    """
    adapter = model.config.adapter is not None and settings.train == "mapper+adapter"
    if any(getattr(module, "merged", False) for module in model.llm.modules()):
        model.llm.unmerge_adapter()
    model.llm.requires_grad_(False)
    model.mapper.requires_grad_(True)
    trained = list(model.mapper.parameters())
    for name, weight in model.llm.named_parameters():
        if adapter and "lora_" in name:
            weight.requires_grad_(True)
            trained.append(weight)
    groups = [
        {"params": [w for w in trained if w.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate(0, settings), betas=settings.betas, fused=True)


def set_training(model: MatsModel, on: bool) -> None:
    """Turn the adapter's dropout on or off; the frozen LLM itself always stays in evaluation mode."""
    model.mapper.train(on)
    for name, module in model.llm.named_modules():
        if "lora_dropout" in name:
            module.train(on)


def train_step(
    model: MatsModel,
    optimizer: torch.optim.Optimizer,
    embedding: torch.Tensor,
    prompts: Sequence[str],
    outputs: Sequence[str],
    settings: TrainingSettings,
    step: int,
) -> StepResult:
    """Noise → vectors → loss → one AdamW step.

    embedding: [B, D], clean; `settings.noise_variance` of noise is added here. The loss is the mean over all target
    tokens of the batch. Dropout draws from torch's global generator: seed it for runs that repeat exactly.
    """
    rate = learning_rate(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    embedding = torch.as_tensor(embedding, dtype=torch.float32, device=model.device)
    if settings.noise_variance > 0:
        noise = step_noise(settings.seed, step, len(embedding), embedding.shape[1])
        embedding = inject_noise(embedding, settings.noise_variance, noise=noise.to(model.device))
    set_training(model, True)
    try:
        scores = model.scores(model.prefix(embedding), prompts, outputs)
    finally:
        set_training(model, False)
    total = scores.tokens.sum()
    loss = (scores.loss * scores.tokens).sum() / total
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    limit = settings.clip_norm if settings.clip_norm is not None else math.inf
    norm = torch.nn.utils.clip_grad_norm_(weights, limit)
    optimizer.step()
    return StepResult(
        loss=loss.item(),
        token_accuracy=(scores.correct.sum() / total).item(),
        target_tokens=int(total.item()),
        learning_rate=rate,
        grad_norm=norm.item(),
    )
