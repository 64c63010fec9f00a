"""The training loop: it learns what it should and nothing else, says what it did, and stops when asked to."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.training.loop import drawn_batches, train, whole_batch
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import NotFiniteError, StepResult, make_optimizer, train_step, trained_weights
from tests.tiny import make_tiny_llm


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


def test_a_loop_ends_after_the_step_in_which_it_is_asked_to_stop(model: MatsModel) -> None:
    settings = TrainingSettings(steps=9, warmup_steps=0)
    batches = (whole_batch(model, step, torch.eye(16)[:1], [model.prompt("caption")], ["a dog"]) for step in range(9))
    done: list[StepResult] = []
    stopped = train(
        model, make_optimizer(model, settings), settings, batches, done.append, stop_asked=lambda: len(done) == 2
    )
    assert stopped
    assert [each.step for each in done] == [0, 1, 2]
    assert [each.stop for each in done] == [False, False, True]
    assert all(0 <= each.wait_seconds <= each.seconds for each in done)


def test_a_batch_whose_loss_is_no_number_changes_no_weight(model: MatsModel) -> None:
    settings = TrainingSettings(steps=3, warmup_steps=0)
    optimizer = make_optimizer(model, settings)
    before = [weight.detach().clone() for weight in trained_weights(optimizer)]
    batch = whole_batch(model, 7, torch.full((1, 16), torch.nan), [model.prompt("caption")], ["a dog"])
    with pytest.raises(NotFiniteError, match="not a finite number in step 7"):
        train(model, optimizer, settings, [batch], lambda _: None)
    assert all(torch.equal(a, b) for a, b in zip(before, trained_weights(optimizer), strict=True))


def test_a_micro_batch_of_weight_zero_changes_nothing(model: MatsModel) -> None:
    settings = TrainingSettings(steps=3, warmup_steps=0)
    results, weights = [], []
    for extra in (False, True):
        fresh = copy.deepcopy(model)
        batch = whole_batch(fresh, 0, torch.eye(16)[:2], [fresh.prompt("caption")] * 2, ["a dog", "no bird"])
        if extra:
            batch.micro_batches.append(replace(batch.micro_batches[0], counts=False))
        optimizer = make_optimizer(fresh, settings)
        results.append(train_step(fresh, optimizer, settings, batch))
        weights.append(torch.cat([weight.flatten() for weight in trained_weights(optimizer)]))
    assert results[0] == results[1]
    assert torch.equal(*weights)


def test_batches_in_memory_are_drawn_by_seed_and_step(model: MatsModel) -> None:
    settings = TrainingSettings(steps=3, batch_size=2, seed=5)
    prompts = [model.prompt("caption")] * 4
    made = list(drawn_batches(model, settings, torch.eye(16)[:4], prompts, WORLD))
    again = list(drawn_batches(model, settings, torch.eye(16)[:4], prompts, WORLD))
    assert [batch.step for batch in made] == [0, 1, 2]
    for a, b in zip(made, again, strict=True):
        assert torch.equal(a.micro_batches[0].embedding, b.micro_batches[0].embedding)
    keys = torch.cat([batch.micro_batches[0].noise_rows for batch in made])
    assert keys.tolist() == [0, 1, 2, 3, 4, 5]  # no two rows of a run share their noise
