"""The training benchmark: both ways train the same thing, and operations are counted right."""

from __future__ import annotations

import json

import pytest
import torch

from jobs.benchmarks.train import count_flops, make_model, make_samples, run_benchmark
from mats_core.errors import SettingsError
from mats_core.schedule import TrainingSettings
from pipelines.training_batches import Sample


def test_stored_embeddings_and_the_text_tower_give_equal_losses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark("small", steps=3, batch=4, device="cpu", encoder="builtin", as_json=True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["largest_loss_difference"] < 5e-3  # what float16 rounds away
    assert figures["first_loss"] > 0
    assert figures["stored_step_s"] > 0 < figures["tower_step_s"]
    assert 0 < figures["mfu"] < 1
    assert 0 <= figures["wait_share"] < 1


def test_operations_counted_by_hand() -> None:
    model = make_model("builtin", 128, torch.device("cpu"))
    settings = TrainingSettings(batch_size=1)
    (sample,) = [Sample(torch.zeros(128).numpy(), model.prompt("caption"), "Rain falls.")]
    tokens, targets = len(model.tokens.prompt(sample.prompt)[0]), len(model.tokens.answer(sample.output))
    config = model.causal_lm.config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = layers * (4 * width * width + 3 * width * inner) + (2 * layers + 1) * width  # and the norms' gains
    assert model.config.adapter is not None
    adapter = layers * model.config.adapter.rank * (4 * 2 * width + 3 * (width + inner))
    mapper = sum(weight.numel() for weight in model.mapper.parameters())
    wanted = (
        4 * linear * (tokens + targets)
        + 6 * adapter * (tokens + targets)
        + 4 * config.vocab_size * width * targets
        + 6 * layers * width * (tokens + targets) ** 2
        + 6 * mapper
    )
    assert count_flops(model, settings, [[sample]]) == (mapper + adapter, wanted)


def test_samples_are_what_embed_text_stores() -> None:
    class Encoder:
        def embed_text(self, captions: list[str]) -> torch.Tensor:
            return torch.full((len(captions), 4), 1 / 3)

    groups, captions = make_samples(TrainingSettings(batch_size=3), 2, Encoder())
    assert [len(group) for group in groups] == [len(each) for each in captions] == [3, 3]
    assert groups[0][0].vector[0] == pytest.approx(1 / 3, abs=2e-4)
    assert groups[0][0].vector[0] != 1 / 3


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(SettingsError, match="small, 7b"):
        run_benchmark("13b", 1, 1, "cpu", "builtin", False)
    with pytest.raises(SettingsError, match="steps, batch"):
        run_benchmark("small", 0, 1, "cpu", "builtin", False)
