"""The training section on a CPU at small sizes: micro-batches as a run cuts them, smaller ones where memory ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.benchmarks.gpu import training
from jobs.benchmarks.gpu.section import Section
from mats_core.training.schedule import TrainingSettings


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return Section("training", "small", torch.device("cpu"), tmp_path / "results", tmp_path, time.monotonic() + 300)


def test_a_step_is_measured(section: Section) -> None:
    training.training(section)
    step, compiled = [json.loads(line) for line in section.results.read_text().splitlines()]
    assert step["what"] == "4 samples a step" and step["tokens_per_s"] > 0 < step["mfu"]
    assert (step["micro_batches"], step["number"]) == (1, "float32")
    assert compiled["skipped"] == "measured on a GPU alone"


def test_prompts_have_the_tokens_that_are_asked_for(section: Section) -> None:
    model = training.untrained_model(section)
    samples = training.drawn_samples(model, 6, 20, 5)
    assert {len(model.tokens.prompt(each.prompt)[0]) for each in samples} == {20}
    batch = training.made_batch(model, samples, TrainingSettings(micro_batch_tokens=50))
    assert len(batch.micro_batches) >= 3 and sum(len(each.embedding) for each in batch.micro_batches) == 6
    targets = sum(len(model.tokens.answer(each.output)) for each in samples)
    assert batch.target_tokens == targets == sum(each.tokens for each in batch.micro_batches) - 6 * 20


def test_where_memory_ends_micro_batches_are_smaller(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def seconds(*given: Any) -> float:
        tried.append(given[3].micro_batch_tokens)
        if len(tried) < 3:
            raise torch.OutOfMemoryError
        return 0.5

    monkeypatch.setattr(training, "_seconds", seconds)
    model = training.untrained_model(section)
    found = training.step_rate(section, model, TrainingSettings(batch_size=4), 1e12)
    assert tried == [16_384, 8192, 4096] and found["step_ms"] == 500
    monkeypatch.setattr(training, "MICRO_BATCHES", ())
    assert "error" in training.step_rate(section, model, TrainingSettings(batch_size=4), 1e12)
