"""One training step: noise, loss, gradient, optimizer. What it trains on is drawn in schedule.py. No cluster here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from mats_core.memory.noise import inject_noise, keyed_normal
from mats_core.model.model import MatsModel
from mats_core.model.tokens import Sequences
from mats_core.training.muon import Muon
from mats_core.training.schedule import TrainingSettings, learning_rate, sample_batch

__all__ = [
    "StepResult",
    "Sums",
    "TrainingSettings",
    "backward",
    "evaluate",
    "learning_rate",
    "make_optimizer",
    "sample_batch",
    "set_training",
    "step_noise",
    "train_step",
    "trained_weights",
    "update",
]

_NOISE_STREAM = 1  # Santa's noise is stream 0


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


@dataclass
class Sums:
    """Over the target tokens of some samples; each a scalar tensor: loss, tokens right, tokens."""

    loss: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


def step_noise(seed: int, step: int, batch_size: int, dim: int) -> torch.Tensor:
    """Standard-normal draws float32 [batch_size, dim] of one step; a pure function."""
    return keyed_normal(seed, torch.arange(batch_size) + step * batch_size, dim, _NOISE_STREAM)


def make_optimizer(model: MatsModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of what is trained, in float32; the rest is frozen. Weight decay falls on matrices only.

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
    for weight in trained:
        weight.data = weight.data.float()  # the master copy: in bf16, small steps would round away
    groups = [
        {"params": [w for w in trained if w.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer == "muon":
        groups[0]["matrices"] = True
        return Muon(groups, lr=learning_rate(0, settings), betas=settings.betas)
    return torch.optim.AdamW(groups, lr=learning_rate(0, settings), betas=settings.betas, fused=True)


def trained_weights(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Everything the optimizer trains, in its order."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def set_training(model: MatsModel, on: bool, gradient_checkpointing: bool = False) -> None:
    """Turn the adapter's dropout on or off; the frozen LLM itself always stays in evaluation mode."""
    model.mapper.train(on)
    for name, module in model.llm.named_modules():
        if "lora_dropout" in name:
            module.train(on)
        elif gradient_checkpointing and getattr(module, "gradient_checkpointing", False):
            module.training = on  # transformers asks the layer, not its parts: their dropout stays off


def backward(
    model: MatsModel,
    embedding: torch.Tensor,
    batch: Sequences,
    settings: TrainingSettings,
    noise_rows: torch.Tensor,
    total: float | None = None,
    dropout_seed: int | None = None,
) -> Sums:
    """Noise → vectors → loss, and its gradient added to the weights'.

    embedding: float32 [B, D], clean; noise_rows: int64 [B], the key of each row's noise, which is drawn on the
    model's device. total: target tokens the gradient is the mean over, when `batch` is one of several that make up
    a step; None: its own. dropout_seed: seeds torch's global generator; None: it goes on as it stands.
    """
    embedding = torch.as_tensor(embedding, dtype=torch.float32).to(model.device, non_blocking=True)
    if settings.noise_variance > 0:
        noise = keyed_normal(settings.seed, noise_rows.to(model.device), embedding.shape[1], _NOISE_STREAM)
        embedding = inject_noise(embedding, settings.noise_variance, noise=noise)
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
    set_training(model, True, settings.gradient_checkpointing)
    try:
        with _mixed(model):
            scores = model.score(model.prefix(embedding), batch)
        tokens = scores.tokens.sum()
        loss = (scores.loss * scores.tokens).sum()
        (loss / (tokens if total is None else total)).backward()
    finally:
        set_training(model, False, settings.gradient_checkpointing)
    return Sums(loss.detach(), scores.correct.sum(), tokens)


@torch.no_grad()
def evaluate(model: MatsModel, embedding: torch.Tensor, batch: Sequences) -> Sums:
    """Loss and accuracy of clean embeddings [B, D]: no noise, no dropout, no gradient."""
    with _mixed(model):
        scores = model.score(model.prefix(embedding), batch)
    return Sums((scores.loss * scores.tokens).sum(), scores.correct.sum(), scores.tokens.sum())


def update(optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int) -> tuple[float, float]:
    """One AdamW step on the gradients there are, clipped; returns learning rate and norm before clipping."""
    rate = learning_rate(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    limit = settings.clip_norm if settings.clip_norm is not None else math.inf
    norm = torch.nn.utils.clip_grad_norm_(trained_weights(optimizer), limit)
    optimizer.step()
    return rate, norm.item()


def train_step(
    model: MatsModel,
    optimizer: torch.optim.Optimizer,
    embedding: torch.Tensor,
    prompts: Sequence[str],
    outputs: Sequence[str],
    settings: TrainingSettings,
    step: int,
) -> StepResult:
    """A whole step at once: `backward` on one batch, then `update`.

    embedding: [B, D], clean; `settings.noise_variance` of noise is added here. The loss is the mean over all target
    tokens of the batch. Dropout draws from torch's global generator: seed it for runs that repeat exactly.
    """
    optimizer.zero_grad(set_to_none=True)
    rows = torch.arange(len(embedding)) + step * len(embedding)
    sums = backward(model, embedding, model.tokens.for_loss(prompts, outputs, model.device), settings, rows)
    rate, norm = update(optimizer, settings, step)
    return StepResult(
        loss=(sums.loss / sums.tokens).item(),
        token_accuracy=(sums.correct / sums.tokens).item(),
        target_tokens=int(sums.tokens.item()),
        learning_rate=rate,
        grad_norm=norm,
    )


def _mixed(model: MatsModel) -> AbstractContextManager[object]:
    """Beside an LLM in half precision, the mapper and the adapter compute in it too; their weights stay float32."""
    number = model.causal_lm.dtype
    if number is torch.float32:
        return nullcontext()
    return torch.autocast(model.device.type, dtype=number)
