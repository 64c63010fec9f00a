"""The training benchmark: both ways train the same thing, and operations are counted right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.benchmarks.train import count_flops, drawn_captions, make_model, make_store, run_benchmark, timed_steps
from mats_core.errors import SettingsError
from mats_core.training.schedule import TrainingSettings
from pipelines.train.batches import Sample, draw_step, wording
from pipelines.train.mixture import Record, StoredSet


def test_stored_embeddings_and_the_text_tower_give_equal_losses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark("small", steps=3, batch=4, device="cpu", encoder="builtin", as_json=True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["largest_loss_difference"] < 5e-3  # what float16 rounds away
    assert figures["first_loss"] > 0
    assert figures["stored_step_s"] > 0 < figures["tower_step_s"]
    assert figures["before_loss_difference"] < 1e-6  # a step is faster than it was, and computes the same
    assert figures["gain"] == pytest.approx(figures["before_step_s"] / figures["stored_step_s"], rel=0.01)
    assert (figures["compiled_step_s"], figures["not_compiled"]) == (None, "not asked for")
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


def test_records_are_drawn_from_a_packed_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is measured on what a run does for a step: rows drawn and looked up, in float16 as embed-text stores."""

    class Encoder:
        def embed_text(self, captions: list[str]) -> torch.Tensor:
            return torch.tensor([[len(caption) / 3000, 1 / 3] for caption in captions])

    data, captions = make_store(tmp_path, 12, Encoder())
    assert (len(data.train), len(data.validation), len(captions)) == (12, 0, 12)
    settings = TrainingSettings(batch_size=5, steps=3)
    model = make_model("builtin", 2, torch.device("cpu"))
    samples = draw_step([data], [1.0], settings, 1, wording(model))
    for sample, caption in zip(samples, drawn_captions(settings, 1, data, captions), strict=True):
        assert sample.vector.tolist() == [np.float16(len(caption) / 3000), np.float16(1 / 3)]
    looked_up: list[int] = []
    real = StoredSet.record

    def record(self: StoredSet, number: int) -> Record:
        looked_up.append(number)
        return real(self, number)

    monkeypatch.setattr(StoredSet, "record", record)
    monkeypatch.setattr("jobs.benchmarks.train.WARM_STEPS", 1)
    timed_steps(model, settings, data, 3, captions, None)
    assert len(looked_up) == 15


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(SettingsError, match="small, 7b"):
        run_benchmark("13b", 1, 1, "cpu", "builtin", False)
    with pytest.raises(SettingsError, match="steps, batch"):
        run_benchmark("small", 0, 1, "cpu", "builtin", False)
