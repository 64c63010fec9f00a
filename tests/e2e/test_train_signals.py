"""`mats train` told to stop: at any moment it leaves a checkpoint of the step it stopped at, and ends with code 130."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import ENV, ROOT
from tests.training_world import make_world, values

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def told_to_stop(
    world: Path, out: Path, stage: str, after_s: float, signals: list[int], workers: int = 1, group: bool = False,
    steps: int = 100_000, **changes: int,
) -> tuple[int, str]:  # fmt: skip
    """Exit code and what was said of a training that gets `signals` some time after it said `stage`; `group`: they go
    to all of its process group, as from a terminal."""
    given = values(world, out, workers=workers, validate_every=steps, **{"checkpoint_every": steps, **changes})
    given["training"]["steps"] = steps
    out.with_suffix(".yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "jobs", "train", str(out.with_suffix(".yaml"))]
    log = out.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, env=ENV, cwd=ROOT, stderr=file, stdout=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while stage not in log.read_text() and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        time.sleep(after_s)
        for number in signals:
            os.killpg(process.pid, number) if group else process.send_signal(number)
            time.sleep(0.2)
        return process.wait(200), log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def checkpoints(out: Path) -> list[int]:
    return sorted(int(path.name[5:14]) for path in (out / "_state" / "checkpoints").glob("step-*.ckpt"))


def check_stopped(out: Path, ended: tuple[int, str]) -> int:
    """The step it stopped at, after asserting that a checkpoint of it is there and the command said so."""
    code, said = ended
    run = json.loads((out / "_run.json").read_text())
    assert (code, run["status"]) == (130, "interrupted"), said
    assert f"interrupted after step {run['step']}; to continue" in said.splitlines()[-1]
    assert max(map(int, re.findall(r"step (\d+)/", said)), default=0) <= run["step"]
    assert checkpoints(out)[-1:] == ([run["step"]] if run["step"] else [])
    assert subprocess.run(["pgrep", "-f", str(out)], capture_output=True, check=False).stdout == b""
    return int(run["step"])


@pytest.mark.long  # a minute
def test_a_closed_terminal_leaves_a_checkpoint_though_two_signals_reach_all_processes(
    world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert check_stopped(out, told_to_stop(world, out, "training: step", 1.0, [HUP, TERM], group=True)) > 0


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("stage", "after_s", "signals", "changes"),
    [
        ("starting Ray", 2.0, [TERM], {}),
        ("loading the model", 0.0, [INT], {}),
        ("loading the model", 2.0, [TERM, TERM], {}),
        ("training: step", 0.0, [HUP], {}),
        ("training: step", 2.0, [INT, INT], {}),
        ("training: step", 1.0, [TERM, INT, HUP], {"checkpoint_every": 1}),
        ("training: step", 1.3, [INT], {"checkpoint_every": 1}),
    ],
)
def test_a_signal_at_any_moment(
    world: Path, tmp_path: Path, workers: int, stage: str, after_s: float, signals: list[int], changes: dict[str, int]
) -> None:
    out = tmp_path / "out"
    step = check_stopped(out, told_to_stop(world, out, stage, after_s, signals, workers, **changes))
    assert step > 0 or "training: step" not in stage


@pytest.mark.long
def test_a_signal_while_the_model_is_written_lets_it_be_written(world: Path, tmp_path: Path) -> None:
    code, said = told_to_stop(world, tmp_path / "out", "writing the model", 0.0, [TERM, TERM], steps=20)
    assert (code, checkpoints(tmp_path / "out")) == (0, [20]), said
    assert (tmp_path / "out" / "model" / "mats.json").is_file()
