"""The training loop: batch after batch through `train_step`, whoever makes the batches and whoever else trains along.

A worker of `mats train` and the training of the embedded world both run it; they differ in what they pass in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mats_core.model.model import MatsModel
from mats_core.training.schedule import TrainingSettings, sample_batch
from mats_core.training.step import MicroBatch, StepBatch, StepResult, SumGradients, sum_here, train_step


def train(
    model: MatsModel,
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    batches: Iterable[StepBatch],
    after_step: Callable[[StepResult], None],
    sum_gradients: SumGradients = sum_here,
    stop_asked: Callable[[], bool] = lambda: False,
) -> bool:
    """Train on `batches`, a step each; returns whether it ended early because a worker asked for it.

    after_step: called with what each step did: records, validates, writes checkpoints; may set its `stop`, in all
    workers alike. sum_gradients: see `train_step`. stop_asked: whether this worker is to stop after the step at hand,
    asked near its end; all then stop after the same.
    Raises NotFiniteError, and what a batch or `after_step` raises.
    """
    following = iter(batches)
    while True:
        began = time.perf_counter()
        batch = next(following, None)
        if batch is None:
            return False
        waited = time.perf_counter() - began
        result = train_step(model, optimizer, settings, batch, sum_gradients, stop_asked)
        result.seconds, result.wait_seconds = time.perf_counter() - began, waited
        after_step(result)
        if result.stop:
            return True


def whole_batch(
    model: MatsModel, step: int, embedding: Tensor, prompts: Sequence[str], outputs: Sequence[str]
) -> StepBatch:
    """A step's batch as one micro-batch, row i of `embedding` (float32 [B, D]) with prompt and output i.

    Dropout draws from torch's global generator as it stands: seed it once for runs that repeat exactly.
    """
    rows = torch.arange(len(embedding)) + step * len(embedding)  # [B]
    batch = model.tokens.for_loss(prompts, outputs, model.device)
    targets = sum(len(model.tokens.answer(text)) for text in outputs)
    return StepBatch(step, [MicroBatch(embedding, batch, rows)], targets, len(prompts))


def drawn_batches(
    model: MatsModel, settings: TrainingSettings, embeddings: Tensor, prompts: Sequence[str], outputs: Sequence[str]
) -> Iterator[StepBatch]:
    """Every step's batch out of one data set in memory, its rows drawn by (seed, step). embeddings: float32 [N, D]."""
    for step in range(settings.steps):
        drawn = sample_batch(settings.seed, step, settings.batch_size, [len(prompts)], [1.0])
        rows = [row for _, row in drawn]
        yield whole_batch(model, step, embeddings[rows], [prompts[i] for i in rows], [outputs[i] for i in rows])
