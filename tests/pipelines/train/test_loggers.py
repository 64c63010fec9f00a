"""Curves as TensorBoard's events, and to loggers that are named."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings.train import TrainSettings
from pipelines.train.loggers import flat, open_logs, tensorboard

VALIDATED = {
    "step": 4,
    "validation": {"one": {"loss": 0.5, "token_accuracy": 0.25}, "two": {"loss": 1.5, "token_accuracy": 0.75}},
    "validation_loss": 1.0,
}


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every scalar in the event files: length, checksum, record, checksum (TFRecord)."""
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value if v.HasField("simple_value")]
    return found


def test_numbers_of_a_point_and_of_a_validation() -> None:
    assert flat({"kind": "point", "step": 3, "loss": 0.5, "wait_share": 0.0}) == {
        "train/loss": 0.5,
        "train/wait_share": 0.0,
    }
    assert flat(VALIDATED) == {
        "validation/loss": 1.0,
        "validation_loss/one": 0.5, "validation_token_accuracy/one": 0.25,
        "validation_loss/two": 1.5, "validation_token_accuracy/two": 0.75,
    }  # fmt: skip


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    log = tensorboard(str(tmp_path), first_step=0)
    log.write(1, {"train/loss": 2.5}, {})
    log.write(4, {"validation/loss": 1.5}, {"answers": "said: rain"})
    log.close()
    assert events(tmp_path / "tensorboard") == [(1, "train/loss", 2.5), (4, "validation/loss", 1.5)]


def test_events_reach_a_url() -> None:
    from mats_core import storage

    log = tensorboard("memory://curves-of-a-test", first_step=0)
    log.write(1, {"train/loss": 2.5}, {})
    log.close()
    assert [info.uri for info in storage.list_files("memory://curves-of-a-test/tensorboard")]


def test_named_loggers_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda numbers, step: told.append(("wandb", step, numbers)), finish=lambda: told.append("wandb closed")
    )
    wandb: Any = types.ModuleType("wandb")
    wandb.init = lambda **given: told.append(("init", given["project"], given["name"])) or run
    mlflow: Any = types.ModuleType("mlflow")
    mlflow.set_experiment = lambda name: told.append(("experiment", name))
    mlflow.start_run = mlflow.log_dict = lambda *_, **__: None
    mlflow.log_metrics = lambda numbers, step: told.append(("mlflow", step, numbers))
    mlflow.log_text = lambda text, name: told.append((name, text))
    mlflow.end_run = lambda: told.append("mlflow closed")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    settings = TrainSettings.model_construct(
        output=str(tmp_path / "mine"), loggers=["wandb", "mlflow"], project="p", data=[]
    )
    logs = open_logs(settings, 0)
    assert len(logs) == 3
    for log in logs:
        log.write(2, {"train/loss": 0.5}, {"answers": "rain"})
        log.close()
    assert told == [
        ("init", "p", "mine"), ("experiment", "p"),
        ("wandb", 2, {"train/loss": 0.5, "answers": "rain"}), "wandb closed",
        ("mlflow", 2, {"train/loss": 0.5}), ("answers-2.md", "rain"), "mlflow closed",
    ]  # fmt: skip
