from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.export.run import run_export
from tests.pipelines.export.made_up import answer_rows, write_answers


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav"], ["x"]))
    run_export(run=run, output=tmp_path / "a.csv", to="csv")
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(SettingsError, match="--overwrite"):
        run_export(run=run, output=tmp_path / "a.csv", to="csv")
    run_export(run=run, output=tmp_path / "a.csv", to="csv", overwrite=True)
    assert (tmp_path / "a.csv").read_bytes() == before
    for wrong in (tmp_path, run / "a.csv", run / "answers"):
        with pytest.raises(SettingsError, match="output"):
            run_export(run=run, output=wrong, to="csv", overwrite=True)


def test_the_text_may_be_another_column(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav"], ["x"], title=["mine"]))
    run_export(run=run, output=tmp_path / "labels", to="audacity", text="title")
    assert (tmp_path / "labels" / "a.txt").read_text() == "0.000000\t2.000000\tmine\n"
    with pytest.raises(SettingsError, match="no column"):
        run_export(run=run, output=tmp_path / "other", to="vtt", text="nothing")


def test_an_empty_choice_is_an_empty_table(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav"], ["x"]))
    for kind in ("csv", "xlsx", "jsonl", "json", "nemo", "lhotse"):
        assert run_export(run=run, output=tmp_path / f"a.{kind}", to=kind, where="false").rows == 0


def test_without_an_output_it_lies_beside_the_run(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav"], ["x"]))
    for kind, place in (("csv", "run.csv"), ("vtt", "run-vtt"), ("lhotse", "run-lhotse.jsonl.gz")):
        assert run_export(run=run, to=kind).output == str(tmp_path / place)
        assert (tmp_path / place).exists()
