from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data.schemas import SEGMENTS_TYPE
from pipelines.export.rows import read_rows
from pipelines.export.run import run_export
from pipelines.output.corrections import Corrections
from tests.pipelines.export.made_up import answer_rows, write_answers
from tests.pipelines.pages.made_up import tone, wav


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


@pytest.mark.parametrize("kind", ["vtt", "srt", "audacity", "nemo", "lhotse"])
def test_what_has_no_sound_is_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    rows = answer_rows(["a.wav", "b.wav", "c.wav", "d.wav"], ["x", None, "y", None])
    codes = pa.array([None, "not_audio", None, "timeout"], pa.string())
    rows = rows.set_column(rows.schema.get_field_index("error_code"), "error_code", codes)
    result = run_export(run=write_answers(tmp_path / "run", rows), output=tmp_path / "out", to=kind)
    assert (result.rows, result.left_out) == (2, {"not_audio": 1, "timeout": 1})


def test_numbers_have_the_digits_that_they_were_written_with(tmp_path: Path) -> None:
    told = [0.996, -0.5, 1e-9, float("inf"), None]
    sure = pa.array(told, pa.float32())
    run = write_answers(tmp_path / "run", answer_rows([f"{at}.wav" for at in range(5)], ["x"] * 5, confidence=sure))
    assert [row["confidence"] for row in read_rows(str(run))] == told
    assert [row["confidence"] for row in read_rows(str(run), "confidence > 0.9959")] == [0.996, float("inf")]
    run_export(run=run, output=tmp_path / "a.csv", to="csv", where="confidence < 1")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [each["confidence"] for each in csv.DictReader(file)] == ["0.996", "-0.5", "1e-09"]


def test_without_an_output_it_lies_beside_the_run(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(["a.wav"], ["x"]))
    for kind, place in (("csv", "run.csv"), ("vtt", "run-vtt"), ("lhotse", "run-lhotse.jsonl.gz")):
        assert run_export(run=run, to=kind).output == str(tmp_path / place)
        assert (tmp_path / place).exists()


def test_what_was_put_right_is_exported_with_who_and_when(tmp_path: Path) -> None:
    segments = [[{"start_s": 0.0, "end_s": 1.0, "text": "old"}], None, None]
    rows = answer_rows(["a.wav", "b.wav", "c.wav"], ["x", "y", "z"], segments=pa.array(segments, SEGMENTS_TYPE))
    run = write_answers(tmp_path / "run", rows)
    first, second, _ = read_rows(str(run))
    said = Corrections(str(run))
    said.correct(first, 0, "=Ann", {"text": "better"})
    said.correct(second, 0, "Bob", {"mark": "right", "labels": ["rain"]})
    run_export(run=run, output=tmp_path / "a.csv", to="csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert [each["text"] for each in told] == ["better", "y", "z"]
    assert [each["corrected_from"] for each in told] == ["x", "", ""]
    assert [each["corrected_by"] for each in told] == ["'=Ann", "Bob", ""], "a name is no formula"
    assert told[1]["corrected_mark"] == "right" and told[1]["corrected_labels"] == '["rain"]'
    assert told[0]["corrected_at"].endswith("Z")
    run_export(run=run, output=tmp_path / "own.csv", to="csv", uncorrected=True)
    assert "corrected_by" not in (tmp_path / "own.csv").read_text() and ",x," in (tmp_path / "own.csv").read_text()
    run_export(run=run, output=tmp_path / "texts", to="vtt")
    assert "better" in (tmp_path / "texts" / "a.vtt").read_text(), "segments that said otherwise are gone"
    chosen = run_export(run=run, output=tmp_path / "b.jsonl", to="jsonl", where="corrected_by IS NOT NULL")
    assert chosen.rows == 2
    run_export(run=run, output=tmp_path / "files.jsonl", to="jsonl", per="file")
    whole = json.loads((tmp_path / "files.jsonl").read_text().splitlines()[0])
    assert (whole["text"], whole["corrected_from"], whole["corrected_by"]) == ("better", "x", "=Ann")


def test_what_was_told_of_the_models_words_is_not_told_of_others(tmp_path: Path) -> None:
    """An answer that was held back as unsure is one that was corrected, too: its segments go."""
    segments = [[{"start_s": 0.0, "end_s": 1.0, "text": "old"}], None]
    facts = {"text_unsure": ["old", None], "confidence": [0.2, 0.9], "logprob": [-3.0, -0.1], "clap_score": [0.1, 0.4]}
    rows = answer_rows(["a.wav", "b.wav"], [None, "y"], segments=pa.array(segments, SEGMENTS_TYPE), **facts)
    run = write_answers(tmp_path / "run", rows)
    first, second = read_rows(str(run))
    said = Corrections(str(run))
    said.correct(first, 0, "Ann", {"text": "better"})
    said.correct(second, 0, "Ann", {"mark": "right"})
    run_export(run=run, output=tmp_path / "a.jsonl", to="jsonl")
    one, other = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (one["text"], one["corrected_from"], one["segments"]) == ("better", "old", None)
    assert [one[name] for name in facts] == [None] * 4
    assert [other[name] for name in facts] == [None, 0.9, -0.1, 0.4], "a mark changes no text"
    run_export(run=run, output=tmp_path / "b.jsonl", to="jsonl", uncorrected=True)
    assert json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])["confidence"] == 0.2


@pytest.mark.processes
def test_a_data_set_that_was_begun_before_a_correction_is_not_gone_on_with(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", tone(300, 1.0))
    run = write_answers(tmp_path / "run", answer_rows([str(tmp_path / "a.wav")], ["x"]))
    run_export(run=run, output=tmp_path / "hf", to="hf")
    Corrections(str(run)).correct(next(read_rows(str(run))), 0, "Ann", {"text": "better"})
    with pytest.raises(SettingsError):
        run_export(run=run, output=tmp_path / "hf", to="hf")
    run_export(run=run, output=tmp_path / "hf", to="hf", overwrite=True)
    (part,) = (tmp_path / "hf").rglob("*.parquet")
    (row,) = pq.read_table(part).to_pylist()
    assert row["text"] == "better" and row["corrected_by"] == "Ann"
    before = part.stat().st_mtime_ns
    assert run_export(run=run, output=tmp_path / "hf", to="hf").rows == 1, "and it goes on where nothing was said since"
    assert part.stat().st_mtime_ns == before
