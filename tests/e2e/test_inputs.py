"""Lists and folders of other people, through a whole run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.benchmarks.scale import Waits
from pipelines.compact import run_compact
from pipelines.settings.archive import RunSettings
from pipelines.settings.compact import CompactSettings
from tests.arrow_types import COLUMNS, same_values
from tests.e2e.conftest import ENV, read_answers, write_tones
from tests.e2e.stand_in import run_stand_in


@pytest.mark.usefixtures("shared_ray")
def test_own_columns_of_every_arrow_type_come_out_of_run_and_compaction_as_they_went_in(tmp_path: Path) -> None:
    write_tones(tmp_path, 3, 0.5)
    columns = {name: column for name, column in COLUMNS.items() if name != "run_end"}  # which no file holds
    uris = [str(path) for path in sorted(tmp_path.glob("*.wav"))]
    pq.write_table(pa.table({"uri": uris, **columns}), tmp_path / "list.parquet")
    settings = RunSettings(input=str(tmp_path / "list.parquet"), output=str(tmp_path / "out"), batch_size=1)
    assert run_stand_in(settings, Waits(), name="caption").status == "complete"
    run_compact(CompactSettings(input=str(tmp_path / "out"), output=str(tmp_path / "few")))
    for place in ("out", "few"):
        table = pq.read_table(tmp_path / place / "answers").sort_by("row_id")
        assert all(table["text"].to_pylist())
        wrong = [name for name, column in columns.items() if not same_values(table[name].combine_chunks(), column)]
        assert wrong == []


def test_a_run_whose_folder_is_moved_away_stops_and_goes_on_when_it_is_back(
    shared_ray: str, tmp_path: Path, tiny_model_dir: str
) -> None:
    archive, out, files = tmp_path / "archive", tmp_path / "out", 1200
    archive.mkdir()
    draw = np.random.default_rng(0)
    for index in range(files):
        soundfile.write(archive / f"{index:04d}.wav", 0.1 * draw.standard_normal(400), 8000)
    command = [sys.executable, "-m", "jobs", "caption", str(archive), str(out), "--model", tiny_model_dir]
    command += ["--commit-rows", "8", "--actors", "1", "--batch-size", "8", "--beams", "1", "--address", shared_ray]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("answers/*.parquet")):
        time.sleep(0.01)
    moved = archive.rename(tmp_path / "away")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "mats: input: its files are gone since they were listed" in said
    assert "give the same command again" in said
    kept = read_answers(out)
    assert 0 < len(kept) < files
    assert {row["error_code"] for row in kept} == {None}
    assert json.loads((out / "_run.json").read_text())["status"] == "failed"
    moved.rename(archive)
    (archive / f"{files - 1:04d}.wav").unlink()  # this one is missing alone
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(files))
    assert [row["uri"] for row in rows if row["error_code"]] == [str(archive / f"{files - 1:04d}.wav")]
    assert rows[-1]["error_code"] == "not_found"
