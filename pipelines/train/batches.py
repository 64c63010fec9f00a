"""Batches of a training step, made ready in a thread while the step before is computed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mats_core.model.prompts import training_prompt
from mats_core.training.schedule import (
    TrainingSettings,
    dropout_key,
    keep_within,
    plan_step,
    sample_batch,
    sample_wordings,
)
from pipelines.train.mixture import Record, StoredSet

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel
    from mats_core.model.tokens import PromptTokens, Sequences

_AHEAD = 4


@dataclass
class Part:
    """One micro-batch: embeddings float32 [B, D], token ids, keys of noise and dropout; `counts` is false for one that
    only keeps the other workers company."""

    embedding: torch.Tensor
    batch: Sequences
    noise_rows: torch.Tensor
    dropout_seed: int
    tokens: int
    counts: bool = True


@dataclass
class StepBatch:
    """What one worker does in one step. `target_tokens` and `samples` are those of the global batch."""

    step: int
    parts: list[Part]
    target_tokens: int
    samples: int


@dataclass
class Share:
    """Which part of the work a worker does. `shards` is the most workers the run may have; `even`: every worker is
    to run as many micro-batches as any other, because their kernels wait for one another (FSDP)."""

    rank: int
    world: int
    shards: int
    even: bool = False


@dataclass
class Sample:
    """A record, worded."""

    vector: np.ndarray
    prompt: str
    output: str


def draw_step(
    sets: list[StoredSet],
    ratios: list[float],
    settings: TrainingSettings,
    step: int,
    word: Callable[[Record, int], str],
) -> list[Sample]:
    """The samples of a step's global batch; a function of (seed, step) and the data alone."""
    sizes = [len(each.train) for each in sets]
    drawn = sample_batch(settings.seed, step, settings.batch_size, sizes, ratios, settings.draw)
    wordings = sample_wordings(settings.seed, step, settings.batch_size)
    samples = []
    for (number, row), wording in zip(drawn, wordings, strict=True):
        record = sets[number].record(int(sets[number].train[row]))
        samples.append(Sample(record.vector, word(record, wording), record.output))
    return samples


def step_batch(
    sets: list[StoredSet],
    ratios: list[float],
    model: MatsModel,
    settings: TrainingSettings,
    step: int,
    share: Share,
    device: torch.device,
) -> StepBatch:
    """A worker's part of a step, all the way: drawn, looked up, worded, tokenised, moved to the device."""
    samples = draw_step(sets, ratios, settings, step, wording(model))
    made = make_step(samples, model.tokens, settings, step, share)
    made.parts = [to_device(part, device) for part in made.parts]
    return made


def wording(model: MatsModel) -> Callable[[Record, int], str]:
    """How a record becomes a prompt of this model: (record, draw) → prompt."""
    template, wordings = model.config.prompt_template, model.config.wordings

    def word(record: Record, draw: int) -> str:
        return training_prompt(record.task, record.instruction, record.tag, draw, wordings, template)

    return word


def make_step(
    samples: list[Sample], tokens: PromptTokens, settings: TrainingSettings, step: int, share: Share
) -> StepBatch:
    """A worker's micro-batches of a step."""
    import torch

    device = torch.device("cpu")
    answers = [len(tokens.answer(each.output)) for each in samples]
    lengths = [len(tokens.prompt(s.prompt)[0]) + n for s, n in zip(samples, answers, strict=True)]
    kept = keep_within(lengths, settings.batch_tokens)
    plan = plan_step(lengths[:kept], share.shards, settings.micro_batch_tokens)
    parts = []
    for shard in range(share.rank, share.shards, share.world):
        for number, rows in enumerate(plan[shard]):
            chosen = [samples[i] for i in rows]
            parts.append(
                Part(
                    embedding=torch.from_numpy(np.stack([each.vector for each in chosen])),
                    batch=tokens.for_loss([each.prompt for each in chosen], [each.output for each in chosen], device),
                    noise_rows=torch.tensor(rows) + step * settings.batch_size,
                    dropout_seed=dropout_key(settings.seed, step, shard, number),
                    tokens=sum(lengths[i] for i in rows),
                )
            )
    if share.even:
        counts = [sum(len(plan[s]) for s in range(r, share.shards, share.world)) for r in range(share.world)]
        parts += [_company(samples[0], tokens, step)] * (max(counts) - len(parts))
    return StepBatch(step, parts, sum(answers[:kept]), kept)


def _company(sample: Sample, tokens: PromptTokens, step: int) -> Part:
    import torch

    embedding = torch.from_numpy(sample.vector[None])
    batch = tokens.for_loss([sample.prompt], [sample.output], torch.device("cpu"))
    return Part(embedding, batch, torch.zeros(1, dtype=torch.int64), step, 0, counts=False)


def to_device(part: Part, device: torch.device) -> Part:
    """The same micro-batch on the device, from pinned memory where that is a GPU."""
    if device.type == "cpu":
        return part

    def move(tensor: Any) -> Any:
        return tensor.pin_memory().to(device, non_blocking=True)

    names = ("ids", "sound", "real", "targets")
    batch = replace(part.batch, **{name: move(getattr(part.batch, name)) for name in names})
    moved = (move(part.embedding), batch, move(part.noise_rows))
    return Part(*moved, part.dropout_seed, part.tokens, part.counts)


class Ahead:
    """Runs `make` for step after step in a thread, a few steps ahead. `waited` is seconds spent in `next`."""

    def __init__(self, make: Callable[[int], StepBatch], first: int, last: int) -> None:
        self._ready: queue.Queue[StepBatch | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make, first, last), daemon=True)
        self.waited = 0.0
        self._thread.start()

    def _work(self, make: Callable[[int], StepBatch], first: int, last: int) -> None:
        for step in range(first, last):
            try:
                made: StepBatch | BaseException = make(step)
            except BaseException as error:  # note: raised where it is waited for
                made = error
            while not self._stop.is_set():
                try:
                    self._ready.put(made, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(made, BaseException):
                return

    def next(self) -> StepBatch:
        """The next step's batch; raises what making it raised."""
        began = time.perf_counter()
        made = self._ready.get()
        self.waited += time.perf_counter() - began
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=10)


def validation_parts(
    each: StoredSet, tokens: PromptTokens, word: Callable[[Record, int], str], budget: int, share: Share
) -> Iterator[Part]:
    """A worker's micro-batches of a set's held-out records, each in the first wording of its task."""
    import torch

    device = torch.device("cpu")
    samples = []
    for number in each.validation:
        record = each.record(int(number))
        samples.append(Sample(record.vector, word(record, 0), record.output))
    lengths = [len(tokens.prompt(s.prompt)[0]) + len(tokens.answer(s.output)) for s in samples]
    plan = [rows for shard in plan_step(lengths, 1, budget) for rows in shard]
    rounds = -(-len(plan) // share.world)
    for turn in range(rounds):
        index = turn * share.world + share.rank
        if index < len(plan):
            chosen = [samples[i] for i in plan[index]]
            batch = tokens.for_loss([s.prompt for s in chosen], [s.output for s in chosen], device)
            embedding = torch.from_numpy(np.stack([s.vector for s in chosen]))
            yield Part(embedding, batch, torch.empty(0, dtype=torch.int64), 0, 0)
        elif share.even:
            yield _company(samples[0], tokens, 0)
