from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.compact import run_compact
from pipelines.data.schemas import SEGMENTS_TYPE
from pipelines.export.rows import columns_of, joined, read_rows, windows_of
from pipelines.settings.compact import CompactSettings
from tests.pipelines.export.made_up import answer_rows, write_answers

URIS = ["a.wav", "a.wav", "b.wav", "c.wav", "c.wav", "c.wav"]
TEXTS = ["one", "two", "three", "four", None, "six"]


def test_rows_come_in_order_whatever_their_parts(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(URIS, TEXTS), parts=3)
    rows = list(read_rows(str(run)))
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3, 4, 5] and [row["text"] for row in rows] == TEXTS
    assert "embedding" not in rows[0] and "embedding" not in columns_of(str(run))


def test_a_file_is_one_row_with_all_that_was_said(tmp_path: Path) -> None:
    segments = [[{"start_s": 2.0 * at, "end_s": 2.0 * at + 1, "text": str(at)}] for at in range(6)]
    rows = answer_rows(URIS, TEXTS, segments=pa.array(segments, SEGMENTS_TYPE))
    run = write_answers(tmp_path / "run", rows)
    files = list(read_rows(str(run), per="file"))
    assert [row["uri"] for row in files] == ["a.wav", "b.wav", "c.wav"]
    assert [row["text"] for row in files] == ["one\ntwo", "three", "four\nsix"]
    assert [row["duration_s"] for row in files] == [4.0, 2.0, 6.0]
    assert [row["error_code"] for row in files] == [None, None, "not_audio"]
    assert [each["text"] for each in files[2]["segments"]] == ["3", "4", "5"]


def test_two_questions_about_a_file_stay_apart(tmp_path: Path) -> None:
    rows = answer_rows(["a.wav"] * 4, TEXTS[:4], question=["p", "p", "q", "q"], start_s=[0.0, 2.0, 0.0, 2.0])
    files = list(read_rows(str(write_answers(tmp_path / "run", rows)), per="file"))
    assert [(row["question"], row["text"]) for row in files] == [("p", "one\ntwo"), ("q", "three\nfour")]


def test_conditions_and_what_is_pruned(tmp_path: Path) -> None:
    run = write_answers(tmp_path / "run", answer_rows(URIS, TEXTS), pruned=[[1, 2]])
    assert [row["row_id"] for row in read_rows(str(run), "error_code is null and start_s < 4")] == [0, 3]
    with pytest.raises(SettingsError, match="where"):
        list(read_rows(str(run), "nothing = 1"))


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no rows"):
        list(read_rows(str(tmp_path)))


def test_a_window_is_a_row_where_there_are_segments(tmp_path: Path) -> None:
    told = [{"start_s": 0.0, "end_s": 1.5, "text": "first"}, {"start_s": 1.5, "end_s": 2.0, "text": "second"}]
    rows = answer_rows(["a.wav", "b.wav"], ["x", "y"], segments=pa.array([told, None], SEGMENTS_TYPE))
    found = list(read_rows(str(write_answers(tmp_path / "run", rows)), per="window"))
    assert [(row["uri"], row["start_s"], row["decoded_s"], row["text"]) for row in found] == [
        ("a.wav", 0.0, 1.5, "first"),
        ("a.wav", 1.5, 0.5, "second"),
        ("b.wav", 0.0, 2.0, "y"),
    ]


def test_a_file_is_as_loud_as_its_chunks_together() -> None:
    chunk = {"text": "a", "error_code": None, "error_message": None, "silent": False}
    loud = {**chunk, "decoded_s": 30.0, "peak_dbfs": -1.0, "rms_dbfs": -10.0, "clipped": 0.1}
    quiet = {**chunk, "decoded_s": 90.0, "peak_dbfs": -60.0, "rms_dbfs": -120.0, "clipped": 0.0, "silent": True}
    lost = {**chunk, "decoded_s": 0.0, "peak_dbfs": None, "rms_dbfs": None, "clipped": None, "silent": None}
    whole = joined([loud, quiet, lost])
    assert whole["peak_dbfs"] == -1.0 and whole["rms_dbfs"] == pytest.approx(-10.0 - 6.0206, abs=1e-3)
    assert whole["clipped"] == pytest.approx(0.025) and whole["silent"] is False


def test_a_file_is_as_sure_as_its_least_sure_answer_and_a_window_is_not_told() -> None:
    chunk = {"text": "a", "error_code": None, "error_message": None, "decoded_s": 60.0, "start_s": 0.0}
    sure = {**chunk, "logprob": -0.1, "clap_score": 0.8, "confidence": 0.9, "text_unsure": None}
    unsure = {**chunk, "text": None, "logprob": -0.7, "clap_score": 0.9, "confidence": 0.4, "text_unsure": "b"}
    silent = {**chunk, "text": "Silence.", "logprob": None, "clap_score": None, "confidence": None, "text_unsure": None}
    whole = joined([sure, unsure, silent])
    assert (whole["logprob"], whole["clap_score"], whole["confidence"]) == (-0.7, 0.8, 0.4)
    assert (whole["text"], whole["text_unsure"]) == ("a\nSilence.", "b")
    assert joined([silent])["confidence"] is None
    (window,) = windows_of({**sure, "segments": [{"start_s": 0.0, "end_s": 5.0, "text": "c"}]})
    assert (window["text"], window["logprob"], window["confidence"]) == ("c", None, None)


@pytest.mark.parametrize("values", [["dog", "a/b=c", None, "dog", "ü", "dog"], [1, 2, 2, 1, None, 1], [True] * 6])
def test_the_column_that_folders_of_a_compaction_are_named_by_is_there_again(tmp_path: Path, values: list[Any]) -> None:
    run = write_answers(tmp_path / "run", answer_rows(URIS, TEXTS, kind=values), parts=2)
    run_compact(CompactSettings(input=str(run), output=str(tmp_path / "few"), partition_by="kind"))
    found = list(read_rows(str(tmp_path / "few"), per="chunk"))
    assert [(row["row_id"], row["kind"]) for row in found] == list(enumerate(values))
    assert "kind" in columns_of(str(tmp_path / "few"))
    chosen = read_rows(str(tmp_path / "few"), where="kind is not null")
    assert [row["kind"] for row in chosen] == [value for value in values if value is not None]
