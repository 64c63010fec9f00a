"""`mats serve` as a user runs it: it says where it is, and a signal ends it with the code that the project has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.finding.serve import serve
from tests.pipelines.pages.made_up import row, write_run

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("number", "model"),
    [
        (signal.SIGINT, "none"),
        (signal.SIGTERM, "none"),
        pytest.param(signal.SIGINT, "builtin", marks=pytest.mark.long),
    ],
)
def test_it_says_where_it_is_and_ends_by_a_signal(tmp_path: Path, number: signal.Signals, model: str) -> None:
    """Also while it is still loading the model."""
    run = write_run(tmp_path / "run", [row(0, "/in/a.wav")])
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "serve", run, "--port", "0", "--model", model],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"MATS_CACHE": str(tmp_path / "c")},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:") and "Ctrl-C" in line, process.stderr.read()
    with urllib.request.urlopen(line.split()[0] + "api/runs", timeout=30) as answer:
        assert answer.status == 200
    process.send_signal(number)
    assert process.wait(180) == 130
    assert process.stderr.read().splitlines()[-1] == "mats: interrupted"


def test_what_is_wrong_is_told_in_a_line(tmp_path: Path) -> None:
    assert serve.__doc__
    for words, told in (
        ([], "runs: nothing is to be served"),
        ([str(tmp_path)], "holds no answers"),
        (["--demo", "--host", "0.0.0.0"], "token: "),
    ):
        done = CliRunner().invoke(app, ["serve", *words])
        assert done.exit_code == 2 and told in done.output, done.output
