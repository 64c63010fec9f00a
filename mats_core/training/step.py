"""One training step: noise, loss, gradient, optimizer. What it trains on is drawn in schedule.py. No cluster here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from mats_core.device import exact_float32
from mats_core.errors import SettingsError
from mats_core.memory.noise import as_uniform, inject_noise, keyed_normal
from mats_core.model.model import MatsModel
from mats_core.model.tokens import Sequences
from mats_core.training.muon import Muon
from mats_core.training.schedule import TrainingSettings, learning_rate

_NOISE_STREAM = 1  # Santa's noise is stream 0


@dataclass
class MicroBatch:
    """Samples that go through the LLM at once.

    embedding: float32 [B, D], clean. batch: prompts and targets as token ids. noise_rows: int64 [B], the key of each
    row's noise. dropout_seed: seeds torch's global generator; None: it goes on as it stands. tokens: of prompts and
    targets, without padding. counts: False for a micro-batch of weight zero: its gradient is zero and it enters no sum.
    A worker that has fewer micro-batches than another runs such ones, where workers exchange weights in every pass
    (FSDP) and therefore have to make equally many passes.
    """

    embedding: torch.Tensor
    batch: Sequences
    noise_rows: torch.Tensor
    dropout_seed: int | None = None
    tokens: int = 0
    counts: bool = True


@dataclass
class StepBatch:
    """What one worker computes in one step (counted from 0). `target_tokens` and `samples` are those of all workers."""

    step: int
    micro_batches: list[MicroBatch]
    target_tokens: int
    samples: int


@dataclass
class StepResult:
    """What a step did, all workers together.

    loss_sum: over the target tokens; correct: target tokens predicted right; tokens: of prompts and targets. grad_norm:
    before clipping. seconds: of the step, the wait for its batch included when the loop sets it. stop: whether a worker
    has asked that the run end after this step.
    """

    step: int
    loss_sum: float
    correct: float
    target_tokens: int
    tokens: int
    samples: int
    learning_rate: float
    grad_norm: float
    stop: bool = False
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @property
    def loss(self) -> float:
        """Mean cross-entropy a target token."""
        return self.loss_sum / self.target_tokens

    @property
    def token_accuracy(self) -> float:
        """Share of the target tokens predicted right."""
        return self.correct / self.target_tokens


class NotFiniteError(ArithmeticError):
    """The loss or its gradient is infinite or not a number in `step`; the weights are as before it."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss or its gradient is not a finite number in step {step}")
        self.step = step


@dataclass
class Sums:
    """Over the target tokens of some samples; each a scalar tensor: loss, tokens right, tokens."""

    loss: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


SumGradients = Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor]
"""(weights, numbers float32 [n]) → the numbers, summed over all workers as the weights' gradients are in place. The
device is not waited for."""


def make_optimizer(model: MatsModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of what is trained, in float32; the rest is frozen. Weight decay falls on matrices only.

    Undoes a merged adapter, which cannot be trained. SettingsError where that is not possible, since it was rounded.
    """
    adapter = model.config.adapter is not None and settings.train == "mapper+adapter"
    if any(getattr(module, "merged", False) for module in model.llm.modules()):
        if model.number_types["llm"] != "float32":
            why = f"the adapter is merged into an LLM in {model.number_types['llm']}, and rounded with it"
            raise SettingsError("merge_adapter", why, "load the model with merge_adapter=False")
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
    hidden = _hidden(model) if settings.optimizer == "muon" else set()
    groups: list[dict[str, Any]] = [
        {"params": [w for w in trained if w.ndim >= 2 and w not in hidden], "weight_decay": settings.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer == "muon":
        matrices = [w for w in trained if w in hidden]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, "matrices": True})
        return Muon(groups, lr=learning_rate(0, settings), betas=settings.betas)
    return torch.optim.AdamW(groups, lr=learning_rate(0, settings), betas=settings.betas, fused=True)


def _hidden(model: MatsModel) -> set[torch.Tensor]:
    """What Muon is for: the weights of linear layers, but for the mapper's last, which is as wide as all its vectors
    together. Learned queries are no layer."""
    *inner, _ = (layer.weight for layer in model.mapper.modules() if isinstance(layer, torch.nn.Linear))
    return {*inner, *(weight for name, weight in model.llm.named_parameters() if "lora_" in name)}


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


def backward(model: MatsModel, samples: MicroBatch, settings: TrainingSettings, target_tokens: float) -> Sums:
    """Noise → vectors → loss, and its gradient added to the weights'.

    target_tokens: of the whole step, which the gradient is the mean over. Noise is drawn on the model's device.
    """
    embedding = samples.embedding.to(model.device, torch.float32, non_blocking=True)  # [B, D]
    if settings.noise_variance > 0:
        keys = samples.noise_rows.to(model.device)  # [B]
        noise = keyed_normal(settings.seed, keys, embedding.shape[1], _NOISE_STREAM)  # [B, D]
        noise = as_uniform(noise) if settings.noise == "uniform" else noise
        embedding = inject_noise(embedding, settings.noise_variance, noise=noise)
    if samples.dropout_seed is not None:
        torch.manual_seed(samples.dropout_seed)
    set_training(model, True, settings.gradient_checkpointing)
    try:
        with _adapter_as_it_is_given(model):  # on the way back too, where layers are computed again
            with _mixed(model):
                scores = model.score(model.prefix(embedding), samples.batch)  # of each sample, [B]
            loss = (scores.loss * scores.tokens).sum()  # scalar
            (loss / (target_tokens if samples.counts else math.inf)).backward()
    finally:
        set_training(model, False, settings.gradient_checkpointing)
    return Sums(loss.detach(), scores.correct.sum(), scores.tokens.sum())


@torch.no_grad()
@exact_float32()
def evaluate(model: MatsModel, embedding: torch.Tensor, batch: Sequences) -> Sums:
    """Loss and accuracy of clean embeddings float32 [B, D]: no noise, no dropout, no gradient."""
    with _adapter_as_it_is_given(model), _mixed(model):
        scores = model.score(model.prefix(embedding), batch)  # of each sample, [B]
    return Sums((scores.loss * scores.tokens).sum(), scores.correct.sum(), scores.tokens.sum())


def update(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int, norm: torch.Tensor
) -> float:  # fmt: skip
    """One step of the optimizer on the gradients there are, clipped by their `norm`; returns the learning rate."""
    rate = learning_rate(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained_weights(optimizer), settings.clip_norm, norm)
    optimizer.step()
    return rate


def sum_here(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> torch.Tensor:
    """`sums` as they are, where one worker does it all."""
    return sums


def _agree(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> tuple[list[float], torch.Tensor] | None:
    """The sums as numbers and the norm of the whole gradient; None where a sum or a gradient is infinite or no number.

    One norm says it of all gradients at once, and is what clipping needs: the device is waited for once a step.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)  # scalar
    numbers = torch.cat([sums, norm[None]]).tolist()
    if not all(map(math.isfinite, numbers[:-1])):
        return None
    # note: squares of finite gradients may add up to infinity; that alone is no reason to stop
    if not math.isfinite(numbers[-1]) and not all(bool(torch.isfinite(each).all()) for each in gradients):
        return None
    return numbers, norm


@exact_float32()
def train_step(
    model: MatsModel,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    batch: StepBatch,
    sum_gradients: SumGradients = sum_here,
    stop_asked: Callable[[], bool] = lambda: False,
) -> StepResult:
    """The gradient of every micro-batch, summed, then one `update`.

    sum_gradients: sums the weights' gradients in place, and some numbers, over all workers. stop_asked: whether this
    worker wishes to end the run, asked as late in the step as all of them can still hear of it in the result. Raises
    NotFiniteError, in every worker, before any weight changes. Only `seconds` and `wait_seconds` of the result are left
    to the loop.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=model.device)
    correct = torch.zeros((), device=model.device)
    for samples in batch.micro_batches:
        sums = backward(model, samples, settings, batch.target_tokens)
        if samples.counts:
            loss, correct = loss + sums.loss, correct + sums.correct
    tokens = sum(samples.tokens for samples in batch.micro_batches)
    counted = torch.tensor([tokens, stop_asked()], dtype=torch.float32, device=model.device)  # [2]
    weights = trained_weights(optimizer)
    agreed = _agree(weights, sum_gradients(weights, torch.cat([torch.stack([loss, correct]), counted])))
    if agreed is None:
        raise NotFiniteError(batch.step)
    (loss_sum, right, tokens_of_all, stops, size), norm = agreed
    rate = update(optimizer, settings, batch.step, norm)
    return StepResult(
        step=batch.step, loss_sum=loss_sum, correct=right, target_tokens=batch.target_tokens,
        tokens=int(tokens_of_all), samples=batch.samples, learning_rate=rate, grad_norm=size, stop=stops > 0,
    )  # fmt: skip


def _mixed(model: MatsModel) -> AbstractContextManager[object]:
    """Beside an LLM in half precision, the mapper and the adapter compute in it too; their weights stay float32."""
    number = model.causal_lm.dtype
    if number is torch.float32:
        return nullcontext()
    return torch.autocast(model.device.type, dtype=number)


def _adapter_as_it_is_given(model: MatsModel) -> AbstractContextManager[object]:
    """Beside an LLM in half precision, the adapter's layers take their inputs as they come: PEFT would make them
    float32, only for `_mixed` to round them again."""
    if model.config.adapter is None or model.causal_lm.dtype is torch.float32:
        return nullcontext()
    from peft.helpers import disable_input_dtype_casting

    as_given: AbstractContextManager[object] = disable_input_dtype_casting(model.llm)
    return as_given
