"""What a step trains on: laws of the plan, and draws that depend on nothing but seed and step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mats_core.errors import SettingsError
from mats_core.training.schedule import (
    TrainingSettings,
    dropout_key,
    keep_within,
    learning_rate,
    plan_step,
    sample_batch,
    sample_wordings,
)


def test_plan_by_hand() -> None:
    # sorted: 9 (index 1), 8 (3), 5 (0), 4 (4), 1 (2); dealt in turn to two shards; at most 16 tokens a micro-batch
    assert plan_step([5, 9, 1, 8, 4], shards=2, micro_batch_tokens=16) == [[[1], [0, 2]], [[3, 4]]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 5), st.integers(1, 200))
def test_a_plan_takes_every_sample_once_within_the_budget(lengths: list[int], shards: int, budget: int) -> None:
    plan = plan_step(lengths, shards, budget)
    assert len(plan) == shards
    parts = [part for shard in plan for part in shard]
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= budget
    work = [sum(lengths[i] for part in shard for i in part) for shard in plan]
    assert max(work) - min(work) <= max(lengths)  # dealt out longest first, so shards hardly differ


def test_a_step_of_so_many_tokens() -> None:
    assert keep_within([4, 4, 4], None) == 3
    assert keep_within([4, 4, 4], 12) == 3
    assert keep_within([4, 4, 4], 11) == 2
    assert keep_within([40, 4], 11) == 1


def test_wordings_are_drawn_apart_from_rows() -> None:
    wordings = sample_wordings(3, 7, 1000)
    assert wordings == sample_wordings(3, 7, 1000)
    assert wordings != sample_wordings(3, 8, 1000)
    rows = [row for _, row in sample_batch(3, 7, 1000, [2**31], [1.0])]
    assert abs(np.corrcoef(wordings, rows)[0, 1]) < 0.1
    assert np.bincount(np.array(wordings) % 4).min() > 200


def test_dropout_keys_differ_by_step_shard_and_part() -> None:
    keys = {dropout_key(0, step, shard, part) for step in range(10) for shard in range(3) for part in range(3)}
    assert len(keys) == 90
    assert all(0 <= key < 2**63 for key in keys)
    assert dropout_key(0, 1, 2, 0) == pytest.approx(dropout_key(0, 1, 2, 0))


def test_learning_rate_by_hand() -> None:
    settings = TrainingSettings(steps=110, warmup_steps=10, learning_rate=1.0, warmup_start=0.0)
    assert learning_rate(0, settings) == 0.0
    assert learning_rate(5, settings) == pytest.approx(0.5)
    assert learning_rate(10, settings) == pytest.approx(1.0)
    assert learning_rate(60, settings) == pytest.approx(0.5)  # half of the cosine
    assert learning_rate(110, settings) == pytest.approx(0.0)
    assert TrainingSettings().learning_rate == 3e-5


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    draw = sample_batch(1, 2, 50, [10, 1000], [1, 3])
    assert draw == sample_batch(1, 2, 50, [10, 1000], [1, 3])
    assert draw != sample_batch(1, 3, 50, [10, 1000], [1, 3])
    assert draw != sample_batch(2, 2, 50, [10, 1000], [1, 3])
    assert all(0 <= row < [10, 1000][dataset] for dataset, row in draw)


def test_batches_follow_the_ratios() -> None:
    counts = Counter(d for step in range(200) for d, _ in sample_batch(0, step, 50, [5, 5, 5], [1, 3, 0]))
    assert counts[2] == 0
    assert counts[1] / 10_000 == pytest.approx(0.75, abs=0.02)


def test_one_data_set_a_batch_as_in_the_reference() -> None:
    for step in range(20):
        assert len({d for d, _ in sample_batch(0, step, 30, [5, 5], [1, 1], per="batch")}) == 1


def test_impossible_mixtures_are_refused() -> None:
    for sizes, ratios in (([5], [0]), ([5], [-1]), ([5, 5], [1]), ([0, 5], [1, 1])):
        with pytest.raises(SettingsError):
            sample_batch(0, 0, 4, sizes, ratios)
