"""Lists and folders of other people, through a whole run."""

from __future__ import annotations

import json
import os
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


@pytest.mark.long  # a minute
def test_a_run_whose_folder_is_moved_away_stops_and_goes_on_when_it_is_back(shared_ray: str, tmp_path: Path) -> None:
    archive, out, files = tmp_path / "archive", tmp_path / "out", 320
    archive.mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * 44_100)
    soundfile.write(archive / "000.flac", noise, 44_100)  # so long that decoding takes its time
    for index in range(1, files):
        os.link(archive / "000.flac", archive / f"{index:03d}.flac")
    settings = {"input": str(archive), "output": str(out), "commit_rows": 8, "batch_size": 8, "address": shared_ray}
    given = {"settings": {**settings, "actors": 1, "decoders": 1}, "waits": {}}
    command = [sys.executable, "-m", "tests.e2e.stand_in", json.dumps(given)]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("answers/*.parquet")):
        time.sleep(0.01)
    moved = archive.rename(tmp_path / "away")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 1, said
    assert "InputGone: input: its files are gone since they were listed" in said
    assert "give the same command again" in said
    kept = read_answers(out)
    assert 0 < len(kept) < files
    assert {row["error_code"] for row in kept} == {None}
    assert json.loads((out / "_run.json").read_text())["status"] == "failed"
    moved.rename(archive)
    last = archive / f"{files - 1:03d}.flac"
    last.unlink()  # this one is missing alone
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(files))
    assert len({row["text"] for row in rows[:-1]}) == 1
    assert [(row["uri"], row["error_code"]) for row in rows if row["error_code"]] == [(str(last), "not_found")]
