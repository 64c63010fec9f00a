"""Interrupted, killed, started twice: every row once, and equal to an undisturbed run's."""

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

from pipelines.archive.caption import run_caption
from pipelines.output.lease import Lease, LeaseHeld
from pipelines.settings.archive import CaptionSettings
from tests.e2e.conftest import ENV, read_answers, without


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it: Ctrl-C reaches all of it
    )


def wait_for_parts(out: Path, more_than: int, process: subprocess.Popen[str]) -> int:
    """Until `out` has more parts than that; returns how many."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        parts = len(list((out / "answers").glob("*.parquet"))) if (out / "answers").exists() else 0
        if parts > more_than:
            return parts
        time.sleep(0.02)
    pytest.fail(f"no new part: {process.communicate()}")


def test_interrupted_then_killed_then_finished(
    shared_ray: str, tones: Path, tmp_path: Path, tiny_model_dir: str
) -> None:
    """Ctrl-C after the first part, kill -9 after the next, then to the end; on a cluster that was joined."""
    out, rows_asked = tmp_path / "out", 240
    asked = tmp_path / "asked.jsonl"  # two questions a file: a fast machine must not be done before the kill
    questions = [f"Is there sound number {number}?" for number in range(2)]
    lines = [{"uri": str(file), "task": "QA", "question": q} for q in questions for file in sorted(tones.iterdir())]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["caption", str(asked), str(out), "--model", tiny_model_dir, "--commit-rows", "8", "--actors", "1"]
    command += ["--deterministic", "--beams", "6", "--address", shared_ray]

    first = start(*command)
    wait_for_parts(out, 0, first)
    if first.poll() is None:
        os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "To continue, give the same command again" in said
    run = json.loads((out / "_run.json").read_text())
    kept = len(read_answers(out))
    assert (run["status"], run["rows_done"]) == ("interrupted", kept)
    assert 0 < kept < rows_asked

    third = start(*command)
    parts = wait_for_parts(out, len(list((out / "answers").iterdir())), third)
    third.kill()  # -9, the driver alone
    third.communicate()
    assert json.loads((out / "_run.json").read_text())["status"] == "running"
    assert parts > 0

    given = {"input": str(asked), "model": tiny_model_dir, "beams": 6}
    finished = run_caption(CaptionSettings(output=str(out), commit_rows=8, **given))
    assert finished.status == "complete"
    assert 0 < finished.new_rows < rows_asked - kept
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(rows_asked))
    assert len({row["run_id"] for row in rows}) == 3

    run_caption(CaptionSettings(output=str(tmp_path / "undisturbed"), **given))
    assert without(rows, "run_id") == without(read_answers(tmp_path / "undisturbed"), "run_id")
    left = sorted(path.name for path in out.rglob("*") if path.is_file() and path.suffix != ".parquet")
    assert left[-1:] == ["_run.json"]
    assert all(re.fullmatch(r"\d{6}\.json", name) for name in left[:-1])


def test_a_second_run_on_the_same_output_is_refused(tones: Path, tmp_path: Path, tiny_model_dir: str) -> None:
    held = Lease(str(tmp_path / "out"), "first")
    held.acquire()
    with pytest.raises(LeaseHeld, match="holds it since"):
        run_caption(CaptionSettings(input=str(tones), output=str(tmp_path / "out"), model=tiny_model_dir))
    held.check()
    held.release()
