"""A run of few files needs no Ray, and tells the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

from jobs.cli import app
from tests.e2e.conftest import read_answers, without, write_tones


def told(out: Path) -> dict[str, Any]:
    """`_run.json` less what differs from run to run."""
    run: dict[str, Any] = json.loads((out / "_run.json").read_text())
    for name in ("run_id", "started", "ended", "plan", "ray", "stage_s", "steady", "driver_peak_mb", "rows_per_s"):
        del run[name]
    for name in ("output", "actors", "address"):
        del run["settings"][name]
    return {name: value for name, value in run.items() if name not in ("wall_s", "scan_s", "start_s", "busy_s")}


def test_few_files_need_no_ray_and_tell_the_same(
    shared_ray: str, mats: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, tiny_model_dir: str
) -> None:
    write_tones(tmp_path / "in", 12, 3.0)
    (tmp_path / "in" / "text.wav").write_text("not a sound")
    command = ("caption", str(tmp_path / "in"))
    options = ("--model", tiny_model_dir, "--segments", "--commit-rows", "5", "--max-error-rate", "0.05")
    found = {}
    for name, more in {"here": (), "ray": ("--address", shared_ray)}.items():
        out = tmp_path / name
        done = mats(*command, str(out), *options, *more)
        assert done.returncode == 3, done.stderr  # one of 13 is more than 5 %
        assert "not_audio 1" in done.stdout
        parts = [(path.name[:17], pq.read_metadata(path).num_rows) for path in sorted((out / "answers").iterdir())]
        found[name] = (without(read_answers(out), "run_id"), parts, told(out))
        run = json.loads((out / "_run.json").read_text())
        assert (run["ray"] is None) == (name == "here")
    assert found["here"] == found["ray"]
    again = CliRunner().invoke(app, [*command, str(tmp_path / "here"), *options])
    assert again.stdout.startswith("done already: 13 clips")
    shutil.copy(tmp_path / "in" / "0003.wav", tmp_path / "in" / "more.wav")
    more_done = mats(*command, str(tmp_path / "here"), *options)
    assert "14 of 14, 1 new" in more_done.stdout and len(read_answers(tmp_path / "here")) == 14
