"""`mats sample` as it is typed, and what it prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.finding import sample
from tests.pipelines.sample.test_run import judge, make_run


def mats(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["sample", *map(str, words)])
    return done.exit_code, done.output


def test_it_draws_says_what_is_next_and_then_how_many_are_right(tmp_path: Path) -> None:
    assert sample.app.registered_commands[0].name == "sample"
    run, right = make_run(tmp_path / "run")
    code, said = mats(run, "--n", 150, "--out", tmp_path / "s.xlsx", "--seed", 2)
    assert code == 0
    assert "150 of 1,000 answers to" in said and "in 19 strata by confidence" in said
    assert f"mats sample {run} --judge {tmp_path}/s.xlsx" in said
    judge(tmp_path / "s.xlsx", right, ("x", "wrong"))
    code, said = mats(run, "--judge", tmp_path / "s.xlsx", "--target", 0.9)
    assert code == 0
    lines = said.splitlines()
    assert lines[0].startswith("all answers  7") or lines[0].startswith("all answers  8")
    assert "150 judged" in lines[0]
    assert [line.split()[0] for line in lines[:4]] == ["all", "QA", "caption", "confidence"]
    assert "% of the answers" in lines[4]


def test_one_of_a_thing_is_told_as_one(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "run", 40)
    code, said = mats(run, "--n", 4, "--where", "task = 'QA'", "--out", tmp_path / "s.csv")
    assert code == 0 and "4 of 10 answers to" in said and "in 1 stratum by confidence" in said
    code, said = mats(run, "--n", 1, "--out", tmp_path / "t.csv")
    assert code == 2 and "n: 1 clip is too few for 2 tasks or kinds of rows" in said


def test_a_run_without_confidence_and_a_target_out_of_reach(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path / "plain", confident=False)
    _, said = mats(run, "--n", 20, "--out", tmp_path / "s.csv")
    assert "at random: they have no confidence" in said
    run, _ = make_run(tmp_path / "run")
    assert mats(run, "--n", 60, "--out", tmp_path / "t.csv")[0] == 0
    judge(tmp_path / "t.csv", np.zeros(1000, bool))
    code, said = mats(run, "--judge", tmp_path / "t.csv")
    assert code == 0 and "there is no confidence from which on 95% are right" in said
    assert "all answers  0.0% right (0.0% to" in said


@pytest.mark.parametrize(
    ("words", "why"), [([], "neither --out nor --judge"), (["--judge", "nowhere.csv"], "cannot be read")]
)
def test_what_cannot_work_ends_with_code_2(tmp_path: Path, words: list[str], why: str) -> None:
    run, _ = make_run(tmp_path / "run", 40)
    code, said = mats(run, *words)
    assert code == 2 and why in said
