from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.finding.search import print_hits
from pipelines.search.run import SearchResult
from tests.pipelines.search.made_up import chunk_rows, unit_vectors, windows_of, write_run


def test_the_command_prints_windows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(20))))
    done = CliRunner().invoke(app, ["-q", "search", str(run), "--novel", "--most", "3", "--json"])
    assert done.exit_code == 0, done.output
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hits) == 3 and set(hits[0]) == {"uri", "start_s", "end_s", "score", "cosine", "by", "caption", "row_id"}
    table = CliRunner().invoke(app, ["-q", "search", str(run), "--novel", "--most", "3"])
    assert "3 of 20 windows" in table.stdout and "/sounds/" in table.stdout
    some = ["--where", "row_id < 3", "--novel", "--most", "3"]
    assert "3 of 6 windows" in CliRunner().invoke(app, ["-q", "search", str(run), *some]).stdout
    none = CliRunner().invoke(app, ["-q", "search", str(run), "--where", "row_id < 0", "--novel"])
    assert "nothing of 0 windows" in none.stdout


@pytest.mark.processes
def test_a_page_replaces_no_file_of_another_unless_it_is_told_to(tmp_path: Path) -> None:
    run, page = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(4)))), tmp_path / "page.html"
    page.write_text("my letters")
    words = ["-q", "search", str(run), "--novel", "--page", str(page)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "page: " in done.output and "--overwrite" in done.output
    assert page.read_text() == "my letters" and not (run / "_state" / "index").exists(), "before any work"
    assert [CliRunner().invoke(app, [*words, *more]).exit_code for more in (["--overwrite"], [])] == [0, 0]


def test_the_number_that_is_shown_first_is_the_one_that_sorts(capsys: pytest.CaptureFixture[str]) -> None:
    """Words and sound together are sorted by their places: the cosine stands beside."""
    hit = {"uri": "/a.wav", "start_s": 0.0, "end_s": 5.0, "by": "both", "caption": "a dog", "row_id": 0}
    hits = [hit | {"score": 1.0, "cosine": 0.4}, hit | {"score": 0.5, "cosine": 0.9}]
    print_hits(SearchResult(hits, 1))
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert told[0][:3] == ["score", "cosine", "by"] and [line[:2] for line in told[1:3]] == [
        ["1.000", "0.400"],
        ["0.500", "0.900"],
    ]
    assert " ".join(told[3][:4]) == "2 of 1 window,"
    print_hits(SearchResult([each | {"score": each["cosine"]} for each in hits[1:]], 9))
    assert "cosine" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "query: nothing is asked; give words, --like with a sound"),
        (["nowhere", "rain"], "is no folder that exists"),
        (
            ["rain"],
            'run: rain is no folder that exists; give a run, and behind it what to find: mats search RUN "rain"',
        ),
        (["run", "rain", "--by", "smell"], "by"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(tmp_path: Path, words: list[str], told: str) -> None:
    run = write_run(tmp_path / "run", chunk_rows(windows_of(unit_vectors(4))))
    words = [str(run) if word == "run" else str(tmp_path / word) if word == "nowhere" else word for word in words]
    done = CliRunner().invoke(app, ["search", *words])
    assert done.exit_code == 2 and told in done.output
