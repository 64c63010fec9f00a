from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from jobs.cli import app
from tests.pipelines.export.made_up import answer_rows, write_answers


def test_the_command_writes_and_says_what(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav", "b.wav"], ["x", None]))
    done = CliRunner().invoke(app, ["-q", "export", str(run), str(tmp_path / "a.csv"), "--to", "csv"])
    assert done.exit_code == 0 and done.stdout.startswith(f"2 to {tmp_path / 'a.csv'}, ")
    done = CliRunner().invoke(app, ["-q", "export", str(run), str(tmp_path / "by ending.CSV")])
    assert done.exit_code == 0 and (tmp_path / "by ending.CSV").read_bytes() == (tmp_path / "a.csv").read_bytes()
    for name, words in (("b.csv", ["--to", "mp3"]), ("b.srt", []), ("b.csv.gz", [])):
        wrong = CliRunner().invoke(app, ["export", str(run), str(tmp_path / name), *words])
        assert wrong.exit_code == 2 and "to" in wrong.output
