"""The training step: schedule by hand, pure draws, and that it learns what it should and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from mats_core.errors import SettingsError
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.training.loop import train, whole_batch
from mats_core.training.schedule import TrainingSettings, learning_rate, sample_batch
from mats_core.training.step import StepResult, make_optimizer, train_step
from tests.tiny import make_tiny_llm


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


@pytest.fixture
def model(tmp_path: Path) -> MatsModel:
    return MatsModel.new(
        str(make_tiny_llm(tmp_path / "llm")),
        embedding_dim=16,
        mapper=MapperConfig(vectors=4, clip_tokens=2, width=32, layers=1, heads=4),
        adapter=AdapterConfig(rank=4, alpha=8, dropout=0.0),
        decoding=DecodingSettings(beams=1, max_new_tokens=8, repetition_penalty=1.0, no_repeat_ngram=0),
        device="cpu",
    )


WORLD = ["rain with wind", "a dog", "two bell then a siren", "no bird"]


def _train(model: MatsModel, steps: int, **changes: object) -> list[float]:
    settings = TrainingSettings(steps=steps, learning_rate=3e-3, warmup_steps=5, noise_variance=0.002, **changes)
    prompts = [model.prompt("caption")] * 4
    batches = (whole_batch(model, step, 5 * torch.eye(16)[:4], prompts, WORLD) for step in range(steps))
    done: list[StepResult] = []
    assert train(model, make_optimizer(model, settings), settings, batches, done.append) is False
    return [each.loss for each in done]


def test_it_learns_four_sounds_and_leaves_the_llm_alone(model: MatsModel) -> None:
    before = {name: weight.clone() for name, weight in model.llm.named_parameters()}
    losses = _train(model, 200)
    assert losses[-1] < 0.2 < 1.0 < losses[0]
    assert model.generate(torch.eye(16)[:4], [model.prompt("caption")] * 4) == WORLD
    for name, weight in model.llm.named_parameters():
        assert torch.equal(weight, before[name]) == ("lora_" not in name), name


def test_mapper_alone(model: MatsModel) -> None:
    before = {name: weight.clone() for name, weight in model.llm.named_parameters()}
    losses = _train(model, 10, train="mapper")
    assert losses[-1] < losses[0]
    assert all(torch.equal(weight, before[name]) for name, weight in model.llm.named_parameters())


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    llm = str(make_tiny_llm(tmp_path / "llm"))
    sizes = MapperConfig(vectors=2, clip_tokens=1, width=16, layers=1, heads=2)
    weights = []
    for _ in range(2):
        made = MatsModel.new(llm, embedding_dim=16, mapper=sizes, adapter=None, device="cpu")
        _train(made, 5)
        weights.append(made.mapper.linear.weight)
    assert torch.equal(*weights)


def test_step_reports_what_it_did(model: MatsModel) -> None:
    settings = TrainingSettings(steps=10, warmup_steps=0, learning_rate=1e-3, clip_norm=0.5)
    optimizer = make_optimizer(model, settings)
    batch = whole_batch(model, 0, torch.eye(16)[:1], [model.prompt("caption")], ["a dog"])
    result = train_step(model, optimizer, settings, batch)
    assert result.target_tokens == 3  # a, dog, end
    assert result.learning_rate == 1e-3
    assert result.grad_norm > 0
    assert optimizer.param_groups[0]["weight_decay"] == 0.05
    assert {weight.ndim for weight in optimizer.param_groups[1]["params"]} == {1}
    assert not model.mapper.training
