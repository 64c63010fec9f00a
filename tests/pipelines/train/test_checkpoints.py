"""Checkpoints: what comes back, what stays, and what a full disk or a damaged file does."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.config import AdapterConfig, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.storage import StorageError
from mats_core.training.loop import whole_batch
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import make_optimizer, train_step
from pipelines.train.checkpoints import (
    TrainState,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    named_weights,
    prune,
    save_checkpoint,
)
from tests.tiny import make_tiny_llm

SETTINGS = TrainingSettings(steps=10, warmup_steps=0, learning_rate=1e-3)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_llm(tmp_path_factory.mktemp("state") / "llm"))


def fresh(llm: str, optimizer: str = "adamw") -> tuple[MatsModel, torch.optim.Optimizer]:
    sizes = MapperConfig(vectors=2, clip_tokens=1, width=16, layers=1, heads=2)
    adapter = AdapterConfig(rank=2, alpha=4, dropout=0.0)
    model = MatsModel.new(llm, embedding_dim=16, mapper=sizes, adapter=adapter, device="cpu")
    return model, make_optimizer(model, SETTINGS.model_copy(update={"optimizer": optimizer}))


def learn(model: MatsModel, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        batch = whole_batch(model, step, torch.eye(16)[:2], [model.prompt("caption")] * 2, ["rain", "a dog"])
        train_step(model, optimizer, SETTINGS, batch)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_goes_on_exactly(llm: str, tmp_path: Path, optimizer: str) -> None:
    model, steps = fresh(llm, optimizer)
    learn(model, steps, range(3))
    save_checkpoint(str(tmp_path), TrainState(step=3, tokens=42, history=[{"step": 3, "loss": 1.5}]), model, steps)
    learn(model, steps, range(3, 6))

    again, restored = fresh(llm, optimizer)
    state = load_newest(str(tmp_path), again, restored)
    assert (state.step, state.tokens, state.history) == (3, 42, [{"step": 3, "loss": 1.5}])
    learn(again, restored, range(3, 6))
    for name, weight in named_weights(model).items():
        assert torch.equal(weight, named_weights(again)[name]), name


def test_without_a_checkpoint_a_run_begins(llm: str, tmp_path: Path) -> None:
    assert load_newest(str(tmp_path / "none"), *fresh(llm)) == TrainState()


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        (tmp_path / f"step-{step:09d}.ckpt").touch()
    assert prune(str(tmp_path), keep=2, best=10) == [10, 30, 40]
    assert list(list_checkpoints(str(tmp_path))) == [10, 30, 40]


def test_a_damaged_checkpoint_is_passed_over(llm: str, tmp_path: Path) -> None:
    model, optimizer = fresh(llm)
    save_checkpoint(str(tmp_path), TrainState(step=1), model, optimizer)
    newer = Path(save_checkpoint(str(tmp_path), TrainState(step=2), model, optimizer))
    newer.write_bytes(newer.read_bytes()[:-100])
    told: list[str] = []
    assert load_newest(str(tmp_path), model, optimizer, first_worker=False).step == 1
    assert list(list_checkpoints(str(tmp_path))) == [1, 2]  # left to the first worker
    assert load_newest(str(tmp_path), model, optimizer, warn=told.append).step == 1
    assert told == ["the checkpoint of step 2 is damaged and set aside: not a whole checkpoint (SafetensorError)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001.ckpt", "step-000000002.ckpt.damaged"]


def test_a_checkpoint_with_a_flipped_bit_is_never_believed(llm: str, tmp_path: Path) -> None:
    """Bits anywhere: in the header, the state, the weights, the optimizer. What is read is what was written."""
    model, optimizer = fresh(llm)
    learn(model, optimizer, range(1))
    state = TrainState(step=1, tokens=7, history=[{"step": 1, "loss": 0.5}])
    save_checkpoint(str(tmp_path), TrainState(step=0), model, optimizer)
    newer = Path(save_checkpoint(str(tmp_path), state, model, optimizer))
    weights = {name: weight.clone() for name, weight in named_weights(model).items()}
    whole, draw = newer.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    passed_over = 0
    for at in [*range(0, header, 37), *draw.integers(header, len(whole), 60)]:
        changed = bytearray(whole)
        changed[at] ^= 1 << int(draw.integers(8))
        newer.write_bytes(changed)
        found = load_newest(str(tmp_path), model, optimizer, first_worker=False, warn=lambda _: None)
        passed_over += found.step == 0
        assert found in (state, TrainState(step=0))
        assert all(torch.equal(weight, weights[name]) for name, weight in named_weights(model).items())
    assert passed_over > 60


def test_a_checkpoint_of_before_there_were_checksums_is_read(llm: str, tmp_path: Path) -> None:
    from safetensors.torch import load, save

    model, optimizer = fresh(llm)
    learn(model, optimizer, range(1))
    file = Path(save_checkpoint(str(tmp_path), TrainState(step=1), model, optimizer))
    file.write_bytes(save(load(file.read_bytes()), {"state": json.dumps(asdict(TrainState(step=1)))}))
    assert load_newest(str(tmp_path), *fresh(llm)) == TrainState(step=1)


def test_a_damaged_checkpoint_is_none_of_those_to_keep(llm: str, tmp_path: Path) -> None:
    """Kept: the last one. Step 10 is damaged, the run goes on from 5; what it then saves must stay."""
    model, optimizer = fresh(llm)
    for folder in (str(tmp_path), "memory://damaged-checkpoints"):
        save_checkpoint(folder, TrainState(step=5), model, optimizer)
        newer = save_checkpoint(folder, TrainState(step=10), model, optimizer)
        storage.write_bytes(newer, storage.read_bytes(newer)[:-100])
        assert load_newest(folder, model, optimizer).step == 5
        for step in (6, 7):
            save_checkpoint(folder, TrainState(step=step), model, optimizer)
            assert prune(folder, keep=1, best=None) == [step]
        assert load_newest(folder, model, optimizer).step == 7


@pytest.mark.processes
def test_a_checkpoint_of_another_model_is_refused(llm: str, tmp_path: Path) -> None:
    model, optimizer = fresh(llm)
    uri = save_checkpoint(str(tmp_path), TrainState(step=1), model, optimizer)
    alone = MatsModel.new(llm, embedding_dim=16, mapper=model.config.mapper, adapter=None, device="cpu")
    with pytest.raises(SettingsError, match=r"output: its checkpoint .*1.ckpt holds other weights.*--overwrite"):
        load_checkpoint(uri, alone, make_optimizer(alone, SETTINGS))
    with pytest.raises(SettingsError, match="other weights"):  # no silent beginning from step 0
        load_newest(str(tmp_path), alone, make_optimizer(alone, SETTINGS))
    sizes = MapperConfig(vectors=2, clip_tokens=1, width=32, layers=1, heads=2)
    wider = MatsModel.new(llm, embedding_dim=16, mapper=sizes, adapter=model.config.adapter, device="cpu")
    with pytest.raises(SettingsError, match="other weights"):
        load_checkpoint(uri, wider, make_optimizer(wider, SETTINGS))


def test_a_full_disk_leaves_earlier_checkpoints(llm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = fresh(llm)
    save_checkpoint(str(tmp_path), TrainState(step=1), model, optimizer)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_checkpoint(str(tmp_path), TrainState(step=2), model, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.ckpt"]
    assert load_newest(str(tmp_path), model, optimizer).step == 1


def test_checkpoints_live_at_urls(llm: str) -> None:
    model, optimizer = fresh(llm)
    folder = "memory://checkpoints-of-a-test"
    learn(model, optimizer, range(1))
    save_checkpoint(folder, TrainState(step=1), model, optimizer)
    save_checkpoint(folder, TrainState(step=2), model, optimizer)
    assert load_newest(folder, *fresh(llm)).step == 2
    assert prune(folder, keep=1, best=None) == [2]
