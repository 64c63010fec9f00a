"""Every column of our tables is declared once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipelines.data import schemas
from pipelines.data.schemas import NESTED, OUTPUT_COLUMNS, RESERVED, Column, output_columns, with_column, with_output

OFF = SimpleNamespace(with_embedding=False, explain=False)
ROWS = pa.table({"row_id": [7], "entry_id": [1], "uri": ["a.wav"], "last": [True], "mine": [3], "pcm": [b"\0\0"]})
ANSWER: dict[str, Any] = {
    "text": ["a bell"], "segments": [None], "model_fingerprint": ["m"], "run_id": ["r"], "decoded_s": [1.0],
    "complete": [True], "lost_s": [0.0], "peak_dbfs": [-3.0], "rms_dbfs": [-20.0], "clipped": [0.0], "silent": [False],
    "embedding": [[0.5]], "neighbors": [None], "logprob": [-0.5], "clap_score": [0.5], "confidence": [0.9],
    "text_unsure": [None],
}  # fmt: skip


SOUND = ["complete", "lost_s", "peak_dbfs", "rms_dbfs", "clipped", "silent"]
TRUST = ["logprob", "clap_score", "confidence", "text_unsure"]


def test_a_setting_asks_for_its_column() -> None:
    names = [column.name for column in output_columns("caption", OFF)]
    assert names == ["row_id", "decoded_s", "text", "segments", "model_fingerprint", "run_id", *SOUND, *TRUST]
    both = SimpleNamespace(with_embedding=True, explain=True)
    assert [column.name for column in output_columns("caption", both)] == [
        *(*names[:-10], "embedding", "neighbors", *SOUND, *TRUST),
    ]
    sounds = ["row_id", "last", "decoded_s", "windows", "run_id", *SOUND]
    assert [column.name for column in output_columns("embed-audio", both)] == sounds


def test_what_only_the_run_needs_goes_and_what_the_job_adds_comes() -> None:
    answers = with_output(ROWS, "caption", OFF, ANSWER)
    told = ["row_id", "uri", "mine", "decoded_s", "text", "segments", "model_fingerprint", "run_id"]
    assert answers.schema.names == [*told, *SOUND, *TRUST]
    assert answers.schema.field("segments").type == schemas.SEGMENTS_TYPE
    stored = with_column(ROWS, "decoded_s", [1.0], pa.float64())
    embedded = with_output(
        stored, "embed-audio", OFF, {"windows": [[]], "run_id": ["r"], **{name: ANSWER[name] for name in SOUND}}
    )
    assert embedded.schema.names == [
        *("row_id", "uri", "last", "mine", "decoded_s", "windows", "run_id", *SOUND),
    ]
    again = with_output(with_column(embedded, "part", ["p"], pa.string()), "caption", OFF, ANSWER)
    assert "windows" not in again.schema.names
    assert "part" not in again.schema.names
    assert again["run_id"].to_pylist() == ["r"]


def test_a_column_that_is_always_there_must_have_values() -> None:
    with pytest.raises(KeyError, match="text"):
        with_output(ROWS, "caption", OFF, {"decoded_s": [1.0]})


def test_no_column_of_ours_may_be_a_lists_own() -> None:
    assert {column.name for column in OUTPUT_COLUMNS} <= RESERVED
    assert {"chunk_id", "entry_id", "pcm", "part_row"} <= RESERVED
    assert not RESERVED & {"uri", *schemas.REQUEST_COLUMNS}
    assert {"segments", "windows", "embedding", "neighbors"} == NESTED


def test_a_new_column_is_added_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    more = (*OUTPUT_COLUMNS, Column("loudness", pa.float32(), setting="loudness"))
    monkeypatch.setattr(schemas, "OUTPUT_COLUMNS", more)
    on = SimpleNamespace(**vars(OFF), loudness=True)
    answers = with_output(ROWS, "caption", on, {**ANSWER, "loudness": [-20.0]})
    assert answers.schema.names[-1] == "loudness"
    assert answers.schema.field("loudness").type == pa.float32()
