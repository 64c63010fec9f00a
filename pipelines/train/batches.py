"""Batches of a training step: drawn, looked up, worded, tokenised and cut, in a thread beside the step before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mats_core.model.model import MatsModel
from mats_core.model.prompts import joined_tags, training_prompt
from mats_core.model.tokens import PromptTokens
from mats_core.training import schedule
from mats_core.training.schedule import TrainingSettings, plan_step
from mats_core.training.step import MicroBatch, StepBatch
from pipelines.train.mixture import Record, StoredSet

_AHEAD = 4
Word = Callable[[Record, int], str]


@dataclass
class WorkerShare:
    """Which shards of every step a worker computes: `rank`, `rank + world`, … of `shards`, the most workers the run may
    have. `equal_passes`: every worker runs as many micro-batches as any other, as workers of FSDP must, which exchange
    weights in every pass."""

    rank: int
    world: int
    shards: int
    equal_passes: bool = False


@dataclass
class Sample:
    """A record with the prompt it is asked in; vector: float32 [D]."""

    vector: np.ndarray
    prompt: str
    output: str


def wording(model: MatsModel) -> Word:
    """How a record becomes a prompt of this model: (record, draw) → prompt."""
    template, wordings, long_tag = model.config.prompt_template, model.config.wordings, model.config.long_tag

    def word(record: Record, draw: int) -> str:
        tag = joined_tags(long_tag, record.tag) if record.long else record.tag
        return training_prompt(record.task, record.instruction, tag, draw, wordings, template)

    return word


def _sample(each: StoredSet, number: int, word: Word, draw: int) -> Sample:
    record = each.record(int(number))
    return Sample(record.vector, word(record, draw), record.output)


def draw_step(
    sets: list[StoredSet], ratios: list[float], settings: TrainingSettings, step: int, word: Word
) -> list[Sample]:
    """The samples of a step's global batch; a function of (seed, step) and the data alone."""
    sizes = [len(each.train) for each in sets]
    drawn = schedule.sample_batch(settings.seed, step, settings.batch_size, sizes, ratios, settings.draw)
    wordings = schedule.sample_wordings(settings.seed, step, settings.batch_size)
    return [_sample(sets[n], sets[n].train[row], word, draw) for (n, row), draw in zip(drawn, wordings, strict=True)]


def step_batch(
    sets: list[StoredSet], ratios: list[float], model: MatsModel, settings: TrainingSettings, step: int,
    share: WorkerShare, device: torch.device,
) -> StepBatch:  # fmt: skip
    """A worker's share of a step, on its device."""
    samples, tokens = draw_step(sets, ratios, settings, step, wording(model)), model.tokens
    targets = [len(tokens.answer(each.output)) for each in samples]
    lengths = [len(tokens.prompt(s.prompt)[0]) + n for s, n in zip(samples, targets, strict=True)]
    taken = schedule.keep_within(lengths, settings.batch_tokens)
    plan = plan_step(lengths[:taken], share.shards, settings.micro_batch_tokens)
    made = []
    for shard in range(share.rank, share.shards, share.world):
        for number, rows in enumerate(plan[shard]):
            one = _micro_batch([samples[i] for i in rows], tokens)
            one.noise_rows = torch.tensor(rows) + step * settings.batch_size  # [B]
            one.dropout_seed = schedule.dropout_key(settings.seed, step, shard, number)
            one.tokens = sum(lengths[i] for i in rows)
            made.append(one)
    if share.equal_passes:
        passes = [sum(len(plan[s]) for s in range(r, share.shards, share.world)) for r in range(share.world)]
        made += [_weightless(samples[0], tokens, step)] * (max(passes) - len(made))
    return StepBatch(step, [to_device(one, device) for one in made], sum(targets[:taken]), taken)


def validation_batches(
    each: StoredSet, tokens: PromptTokens, word: Word, budget: int, share: WorkerShare, device: torch.device
) -> Iterator[MicroBatch]:
    """A worker's micro-batches of a set's held-out records, each in the first wording of its task; `budget` is the most
    tokens one holds, padding included."""
    samples = [_sample(each, number, word, 0) for number in each.validation]
    lengths = [len(tokens.prompt(s.prompt)[0]) + len(tokens.answer(s.output)) for s in samples]
    (plan,) = plan_step(lengths, 1, budget)
    for first in range(0, len(plan), share.world):
        if first + share.rank < len(plan):
            yield to_device(_micro_batch([samples[i] for i in plan[first + share.rank]], tokens), device)
        elif share.equal_passes:
            yield to_device(_weightless(samples[0], tokens, 0), device)


def _micro_batch(samples: Sequence[Sample], tokens: PromptTokens) -> MicroBatch:
    """Samples as one micro-batch on the CPU, without noise, dropout or a count of tokens."""
    embedding = torch.from_numpy(np.stack([each.vector for each in samples]))  # float32 [B, D]
    prompts, outputs = [each.prompt for each in samples], [each.output for each in samples]
    batch = tokens.for_loss(prompts, outputs, torch.device("cpu"))
    return MicroBatch(embedding, batch, torch.zeros(len(samples), dtype=torch.int64))


def _weightless(sample: Sample, tokens: PromptTokens, step: int) -> MicroBatch:
    """A micro-batch of weight zero, for a worker that has fewer of them than another (see MicroBatch)."""
    return replace(_micro_batch([sample], tokens), dropout_seed=step, counts=False)


def to_device(samples: MicroBatch, device: torch.device) -> MicroBatch:
    """The same micro-batch on the device, from pinned memory where that is a GPU."""
    if device.type == "cpu":
        return samples

    def move(tensor: Any) -> Any:
        return tensor.pin_memory().to(device, non_blocking=True)

    names = ("ids", "sound", "real", "targets")
    batch = replace(samples.batch, **{name: move(getattr(samples.batch, name)) for name in names})
    return replace(samples, embedding=move(samples.embedding), batch=batch, noise_rows=move(samples.noise_rows))


def prefetched(make: Callable[[int], StepBatch], steps: range) -> Generator[StepBatch]:
    """`make(step)` of step after step, made in a thread up to four steps ahead; what one raises is raised in its turn.
    Close the generator to end the thread."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        waiting = deque(thread.submit(make, step) for step in steps[:_AHEAD])
        for step in steps:
            batch = waiting.popleft().result()
            if step + _AHEAD in steps:
                waiting.append(thread.submit(make, step + _AHEAD))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
