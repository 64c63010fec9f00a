"""What INPUT means: folders, lists, their columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.sources import open_source


def test_a_folder_gives_its_audio_files_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.wav", "a/c d.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = open_source(str(tmp_path))
    assert source.kind == "files"
    assert [entry.path for entry in source.entries] == ["a/c d.flac", "b.wav"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_list_has_requests_and_own_columns_and_paths_beside_it(tmp_path: Path, ending: str) -> None:
    (tmp_path / "one.wav").write_bytes(b"12345")
    rows = [
        {"uri": "one.wav", "task": "QA", "question": "what?", "station": 7},
        {"uri": "gone.wav", "task": None, "question": None, "station": 8},
    ]
    path = tmp_path / f"list.{ending}"
    if ending == "csv":
        path.write_text("uri,task,question,station\none.wav,QA,what?,7\ngone.wav,,,8\n")
    elif ending == "jsonl":
        path.write_text(
            '{"uri": "one.wav", "task": "QA", "question": "what?", "station": 7}\n{"uri": "gone.wav", "station": 8}\n'
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    source = open_source(str(path))
    first, second = list(source.entries)
    assert source.own_schema.names == ["station"]
    assert first.uri == str(tmp_path / "one.wav")
    assert (first.request["task"], first.request["question"], first.own) == ("QA", "what?", {"station": 7})
    assert first.size == 5
    assert second.request["task"] is None
    assert second.error is not None
    assert second.error[0] == "not_found"


@pytest.mark.parametrize("column", ["text", "duration_s", "row_id", "windows", "_hidden"])
def test_a_column_of_ours_is_refused_by_name(tmp_path: Path, column: str) -> None:
    (tmp_path / "list.csv").write_text(f"uri,{column}\na.wav,1\n")
    with pytest.raises(SettingsError, match=f"`{column}`"):
        open_source(str(tmp_path / "list.csv"))


def test_a_list_without_uri_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na.wav\n")
    with pytest.raises(SettingsError, match="column `uri`"):
        open_source(str(tmp_path / "list.csv"))
    (tmp_path / "list.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(SettingsError, match="readable list"):
        open_source(str(tmp_path / "list.parquet"))


def test_a_query_string_never_becomes_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri\nhttps://127.0.0.1:9/a.wav?X-Amz-Signature=secret\n")
    entry = next(open_source(str(tmp_path / "list.csv")).entries)
    assert "secret" not in entry.path
    assert "secret" not in str(entry.error)
