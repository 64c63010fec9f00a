"""Batches: made ahead in their order, and the same work whoever does it."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mats_core.model.model import MatsModel
from mats_core.training.step import StepBatch
from pipelines.train.batches import WorkerShare, prefetched, step_batch, validation_batches, wording
from pipelines.train.mixture import StoredSet, open_store
from pipelines.train.pack import ensure_store
from tests.training_world import make_world, settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def parts(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[StoredSet], MatsModel]:
    chosen = settings(world, tmp_path_factory.mktemp("out"))
    sets = open_store(ensure_store(chosen, tmp_path_factory.mktemp("store")))
    model = MatsModel.new(str(world / "llm"), embedding_dim=32, mapper=chosen.mapper, adapter=None, device="cpu")
    return chosen.training, sets, model


def shares(world: int, equal_passes: bool = False) -> list[WorkerShare]:
    return [WorkerShare(rank, world, 3, equal_passes) for rank in range(world)]


def test_any_number_of_workers_runs_the_same_micro_batches(parts: tuple[Any, list[StoredSet], MatsModel]) -> None:
    training, sets, model = parts
    made: list[dict[int, tuple[list[int], torch.Tensor]]] = []
    for world in (1, 2, 3):
        batches = [step_batch(sets, [2.0, 1.0], model, training, 4, share, CPU) for share in shares(world)]
        assert {(each.target_tokens, each.samples) for each in batches} == {(batches[0].target_tokens, 16)}
        every = [one for each in batches for one in each.micro_batches]
        assert all(one.counts and one.tokens > 0 for one in every)
        assert sorted(key for one in every for key in one.noise_rows.tolist()) == list(range(64, 80))  # step 4 of 16
        made.append({one.dropout_seed or 0: (one.noise_rows.tolist(), one.batch.ids) for one in every})
    for other in made[1:]:
        assert other.keys() == made[0].keys()
        for seed, (rows, ids) in other.items():
            assert rows == made[0][seed][0]
            assert torch.equal(ids, made[0][seed][1])


def test_workers_that_must_make_equal_passes_fill_up_with_weight_zero(
    parts: tuple[Any, list[StoredSet], MatsModel],
) -> None:
    training, sets, model = parts
    plain = [step_batch(sets, [2.0, 1.0], model, training, 0, share, CPU) for share in shares(2)]
    equal = [step_batch(sets, [2.0, 1.0], model, training, 0, share, CPU) for share in shares(2, True)]
    most = max(len(each.micro_batches) for each in plain)
    assert min(len(each.micro_batches) for each in plain) < most  # two of three shards against one
    assert [len(each.micro_batches) for each in equal] == [most, most]
    for before, after in zip(plain, equal, strict=True):
        added = after.micro_batches[len(before.micro_batches) :]
        assert all(not one.counts and one.tokens == 0 and len(one.embedding) == 1 for one in added)


def test_held_out_records_are_measured_once_by_all_workers(parts: tuple[Any, list[StoredSet], MatsModel]) -> None:
    _, sets, model = parts
    counted: list[int] = []
    for share in shares(2, True):
        mine = list(validation_batches(sets[0], model.tokens, wording(model), 60, share, CPU))
        counted.append(len(mine))
        counted.append(sum(len(one.embedding) for one in mine if one.counts))
    assert counted[0] == counted[2] > 1
    assert counted[1] + counted[3] == len(sets[0].validation) == 8


def test_batches_come_in_order_and_are_made_ahead() -> None:
    asked: list[int] = []
    made = threading.Event()

    def make(step: int) -> StepBatch:
        asked.append(step)
        if step == 8:
            made.set()
        return StepBatch(step, [], 1, 1)

    with closing(prefetched(make, range(5, 12))) as batches:
        assert next(batches).step == 5
        assert made.wait(10)  # while the first is still in use
        assert [batch.step for batch in batches] == [6, 7, 8, 9, 10, 11]
    assert asked == list(range(5, 12))
    assert list(prefetched(make, range(3, 3))) == []


def test_what_making_a_batch_raises_is_raised_in_its_turn() -> None:
    def make(step: int) -> StepBatch:
        if step == 2:
            raise RuntimeError("no such row")
        return StepBatch(step, [], 1, 1)

    batches = prefetched(make, range(9))
    assert [next(batches).step, next(batches).step] == [0, 1]
    with pytest.raises(RuntimeError, match="no such row"):
        next(batches)


def test_the_thread_ends_with_the_generator() -> None:
    with closing(prefetched(lambda step: StepBatch(step, [], 1, 1), range(1000))) as batches:
        next(batches)
        assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
