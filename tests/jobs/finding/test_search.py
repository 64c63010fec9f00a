from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from tests.pipelines.search.made_up import chunk_rows, unit_vectors, windows_of, write_run


def test_the_command_prints_windows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(20))))
    done = CliRunner().invoke(app, ["-q", "search", str(run), "--novel", "--most", "3", "--json"])
    assert done.exit_code == 0, done.output
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hits) == 3 and set(hits[0]) == {"uri", "start_s", "end_s", "score", "by", "caption", "row_id"}
    table = CliRunner().invoke(app, ["-q", "search", str(run), "--novel", "--most", "3"])
    assert "3 of 20 windows" in table.stdout and "/sounds/" in table.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "query: nothing is asked; give words, --like with a sound"),
        (["nowhere", "rain"], "is no folder that exists"),
        (["run", "rain", "--by", "smell"], "by"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(tmp_path: Path, words: list[str], told: str) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(4))))
    words = [str(run) if word == "run" else str(tmp_path / word) if word == "nowhere" else word for word in words]
    done = CliRunner().invoke(app, ["search", *words])
    assert done.exit_code == 2 and told in done.output
