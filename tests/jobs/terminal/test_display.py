"""What a run says on the terminal."""

from __future__ import annotations

import pytest

from jobs.terminal.display import RunDisplay, duration, print_facts, print_result, skipped_endings, to_continue
from pipelines.archive.run import Progress, RunResult


@pytest.mark.parametrize("status", ["complete", "complete_before"])
def test_the_end_of_a_run_tells_its_output_without_password(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = {"rows_done": 3, "rows_before": 0, "start_s": 1.0, "steady": {}}
    print_result(RunResult(status, "ftp://user:TOPSECRET@host/out", 3, 3, run=run), "clips")
    said = capsys.readouterr().out
    assert "ftp://host/out" in said
    assert "TOPSECRET" not in said


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (190, "3 min 10 s"), (19200, "5 h 20 min")])
def test_a_length_of_time_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_continues_a_run_does_not_begin_it_anew() -> None:
    assert to_continue(False) == "To continue, give the same command again"
    assert "without --overwrite" in to_continue(True)


def test_progress_is_a_line_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay("clips") as display:
        display(Progress("scan", 3, errors=1))
        display(Progress("scan", 4, errors=1))  # the same stage a moment later
        display(Progress("run", 5, 10))
        display.say("a line that stays")
    assert capsys.readouterr().err.splitlines() == [
        "reading the input: 3 files, 1 error",
        "answering: 5/10 clips, 0 errors",
        "a line that stays",
    ]


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("scan", 1, errors=0), "reading the input: 1 file, 0 errors"),
        (Progress("run", 0, 1, errors=1), "answering: 0/1 clip, 1 error"),
        (Progress("run", 1, 2, errors=2), "answering: 1/2 clips, 2 errors"),
    ],
)
def test_one_of_a_thing_is_no_plural(capsys: pytest.CaptureFixture[str], progress: Progress, line: str) -> None:
    with RunDisplay("clips") as display:
        display(progress)
    assert capsys.readouterr().err == f"{line}\n"


def test_facts_stand_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("rows", "3 of 3"), ("output", "out")])
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown == ["rows    3 of 3", "output  out"]


def test_what_is_shown_of_other_people_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("output", "[bold]out[/bold]:smile:")])
    assert "[bold]out[/bold]:smile:" in capsys.readouterr().out
    many = {f".{index}": 1 for index in range(9)} | {".txt": 5, ".\x1b[31m": 3}
    assert skipped_endings(many, most=3) == "5 .txt, 3 .?[31m, 1 .0, 8 others"


def test_a_table_in_a_pipe_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("output", "s3://" + "long name " * 60), ("a", "b")])
    first, second = capsys.readouterr().out.splitlines()
    assert first.rstrip() == "output  s3://" + ("long name " * 60).rstrip()
    assert second.split() == ["a", "b"]
