"""Compiled decoder layers train what they train uncompiled, and a machine that cannot compile says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mats_core.model.config import AdapterConfig, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.training.compiled import cannot_compile, compile_layers, decoder_layers, uncompiled
from mats_core.training.loop import train, whole_batch
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import StepResult, make_optimizer, trained_weights
from tests.tiny import make_tiny_llm

WORLD = ["rain with wind", "a dog", "two bell then a siren", "no bird"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llm(tmp_path_factory.mktemp("compiled") / "llm")


def fresh(llm: Path, dtype: str = "float32") -> MatsModel:
    sizes = MapperConfig(vectors=4, clip_tokens=2, width=32, layers=1, heads=4)
    adapter = AdapterConfig(rank=4, alpha=8, dropout=0.3)
    return MatsModel.new(str(llm), embedding_dim=16, mapper=sizes, adapter=adapter, device="cpu", dtype=dtype)


def steps(model: MatsModel, checkpointing: bool = False) -> tuple[list[float], torch.Tensor]:
    """Losses of five steps of one to four samples, of different lengths, and the weights after them."""
    settings = TrainingSettings(
        steps=5, learning_rate=3e-3, warmup_steps=0, clip_norm=1.0, gradient_checkpointing=checkpointing
    )
    prompts = [model.prompt("caption"), model.prompt("QA", "Is there a dog or a bell ?")] * 2
    batches = []
    for step, size in enumerate((4, 2, 3, 1, 4)):
        batches.append(whole_batch(model, step, 5 * torch.eye(16)[:size], prompts[:size], WORLD[:size]))
        batches[-1].micro_batches[0].dropout_seed = step
    done: list[StepResult] = []
    optimizer = make_optimizer(model, settings)
    train(model, optimizer, settings, batches, done.append)
    return [each.loss for each in done], torch.cat([each.detach().flatten() for each in trained_weights(optimizer)])


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_are_equal(llm: Path, checkpointing: bool) -> None:
    plain, compiled = fresh(llm), fresh(llm)
    names = list(compiled.llm.state_dict())
    assert compile_layers(compiled) is None
    assert list(compiled.llm.state_dict()) == names
    if checkpointing:
        for each in (plain, compiled):
            each.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    (losses, weights), (ours, own) = steps(plain, checkpointing), steps(compiled, checkpointing)
    assert losses[-1] < losses[0]
    assert max(abs(a - b) for a, b in zip(losses, ours, strict=True)) < 1e-6
    torch.testing.assert_close(own, weights, atol=1e-4, rtol=0)
    with uncompiled():
        prompts = [plain.prompt("caption")] * 4
        assert compiled.generate(torch.eye(16)[:4], prompts) == plain.generate(torch.eye(16)[:4], prompts)


def test_the_layers_are_those_of_the_llm(llm: Path) -> None:
    model = fresh(llm)
    assert decoder_layers(model.causal_lm) is model.causal_lm.model.layers


def test_a_machine_that_cannot_compile_says_why_and_trains(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*given: Any, **options: Any) -> Any:
        raise RuntimeError("Failed to find C compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", missing)
    assert cannot_compile(torch.device("cpu")) == "RuntimeError: Failed to find C compiler"
    model = fresh(llm)
    assert compile_layers(model) == "RuntimeError: Failed to find C compiler"
    assert steps(model)[0] == steps(fresh(llm))[0]
