"""A list of sounds in its formats."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data.inputs import open_input, read_table


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_its_schema_and_rows(tmp_path: Path, ending: str) -> None:
    uri = str(tmp_path / f"list.{ending}")
    if ending == "parquet":
        pq.write_table(pa.table({"uri": ["a", "b"], "take": ["1", "2"]}), uri)
    else:
        text = {"csv": "uri,take\na,1\nb,2\n", "jsonl": '{"uri": "a", "take": "1"}\n{"uri": "b", "take": "2"}\n'}
        Path(uri).write_text(text[ending])
    schema, batches = read_table(uri)
    assert schema.names == ["uri", "take"]
    assert pa.Table.from_batches(batches).to_pylist() == [{"uri": "a", "take": "1"}, {"uri": "b", "take": "2"}]


def test_columns_of_a_parquet_file_may_be_left_unread(tmp_path: Path) -> None:
    uri = str(tmp_path / "list.parquet")
    pq.write_table(pa.table({"uri": ["a"], "windows": [[1.0]]}), uri)
    schema, batches = read_table(uri, without={"windows"})
    assert schema.names == ["uri", "windows"]
    assert [batch.schema.names for batch in batches] == [["uri"]]


def test_what_a_list_says_is_carried_along_as_it_stands(tmp_path: Path) -> None:
    """No column changes by a guess at its type, whichever rows come first."""
    rows = ["0123,007,true,2024-01-02", '"a\nb.wav",seven,,x']
    (tmp_path / "list.csv").write_text("uri,take,flag,day\n" + "\n".join(rows))
    entries = list(open_input(str(tmp_path / "list.csv")).entries)
    assert [entry.path for entry in entries] == ["0123", "a\nb.wav"]
    assert [list(entry.own.values()) for entry in entries] == [["007", "true", "2024-01-02"], ["seven", "", "x"]]
    (tmp_path / "list.jsonl").write_text(
        '{"uri": "a.wav", "day": "2024-01-02", "deep": {"at": "2024-01-02"}, "n": 7}\n'
    )
    (entry,) = open_input(str(tmp_path / "list.jsonl")).entries
    assert entry.own == {"day": "2024-01-02", "deep": {"at": "2024-01-02"}, "n": 7}


def test_a_jsonl_column_takes_its_type_from_all_rows(tmp_path: Path) -> None:
    """The first block of 1 MB holds numbers only."""
    rows = [f'{{"uri": "a.wav", "note": {7 if number < 60_000 else 7.5}}}' for number in range(60_001)]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    assert open_input(str(tmp_path / "list.jsonl")).own_schema.field("note").type == pa.float64()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("uri,größe\na.wav,1\n".encode("latin-1"), "is not in UTF-8"),
        (b"uri,x,x\na.wav,1,2\n", "2 columns `x`"),
        (b"uri,,\na.wav,1,2\n", "2 columns ``"),
        (b"uri,uri\na.wav,b.wav\n", "2 columns `uri`"),
    ],
)
def test_a_table_that_means_nothing_certain_is_a_wrong_setting(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        list(open_input(str(tmp_path / "list.csv")).entries)
