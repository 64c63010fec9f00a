"""`mats train` as a user runs it: killed and started again, a worker lost, and a model that answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from pipelines.train.run import TrainProgress, TrainResult, run_train
from tests.e2e.conftest import ENV, ROOT
from tests.training_world import make_world, settings, values

STEPS = {"steps": 40}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: Path, shared_ray: str) -> TrainResult:
    """40 steps on two workers, from end to end."""
    return run_train(settings(world, world / "undisturbed", workers=2, training=STEPS, validate_every=20))


def weights(result: TrainResult) -> dict[str, bytes]:
    """Every trained tensor's bytes."""
    files = [Path(result.model) / "mapper.safetensors", Path(result.model) / "adapter" / "adapter_model.safetensors"]
    return {name: tensor.numpy().tobytes() for file in files for name, tensor in load_file(file).items()}


def test_a_run_leaves_a_model_and_says_what_it_did(world: Path, undisturbed: TrainResult) -> None:
    assert (undisturbed.status, undisturbed.step) == ("complete", 40)
    run = json.loads((world / "undisturbed" / "_run.json").read_text())
    assert (run["status"], run["workers"], run["samples"]) == ("complete", 2, 640)
    assert set(run["validation"]) == {"one", "two"}
    left = sorted(path.name for path in (world / "undisturbed" / "_state").iterdir())
    assert left == ["checkpoints", "generations"]
    assert list((world / "undisturbed" / "tensorboard").glob("events.*"))


def test_a_second_command_finds_it_done(world: Path, undisturbed: TrainResult) -> None:
    again = run_train(settings(world, world / "undisturbed", workers=2, training=STEPS, validate_every=20))
    assert again.status == "complete_before"


@pytest.mark.long  # two minutes; tests/pipelines/train kills a worker at any step
def test_killed_with_9_and_started_again(
    world: Path, undisturbed: TrainResult, tmp_path: Path, shared_ray: str
) -> None:
    """The command's process dies between checkpoints; the next one ends with the very same weights."""
    given = values(world, tmp_path / "out", workers=2, training=STEPS, validate_every=20, checkpoint_every=5)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "jobs", "train", str(tmp_path / "run.yaml"), "--address", shared_ray]
    process = subprocess.Popen(command, env=ENV, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 400
    while not list((tmp_path / "out" / "_state" / "checkpoints").glob("*.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out" / "model").exists()

    result = run_train(settings(world, tmp_path / "out", workers=2, training=STEPS, validate_every=20))
    assert result.status == "complete"
    assert weights(result) == weights(undisturbed)


@pytest.mark.long
def test_a_lost_worker_is_replaced(world: Path, undisturbed: TrainResult, tmp_path: Path) -> None:
    lost: list[int] = []

    def watch(progress: TrainProgress) -> None:
        if progress.step >= 12 and not lost:
            lost.append(progress.pid)
            os.kill(progress.pid, signal.SIGKILL)

    result = run_train(settings(world, tmp_path / "out", workers=2, training=STEPS, validate_every=20), watch)
    assert lost
    assert (result.status, result.run["restarts"]) == ("complete", 1)
    assert weights(result) == weights(undisturbed)


def test_another_training_in_the_same_output_is_refused(world: Path, undisturbed: TrainResult) -> None:
    from mats_core.errors import SettingsError

    other = settings(world, world / "undisturbed", workers=2, training={**STEPS, "seed": 1}, validate_every=20)
    with pytest.raises(SettingsError, match="begun with"):
        run_train(other)
