"""A list of sounds in its formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data import lists
from pipelines.data.inputs import open_input
from pipelines.data.lists import read_table


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


@pytest.mark.parametrize("name", ["uri", " uri "])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_list_may_separate_its_fields_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str, name: str
) -> None:
    if name != "uri":
        monkeypatch.setattr(lists, "_SMALL", 1)  # as a stream
    lines = ((name, '"title, long"'), ("a.wav", '"Rain; wind | sea, all"'))
    (tmp_path / "list.csv").write_text("\ufeff" + "\n".join(separator.join(line) for line in lines), encoding="utf-8")
    _, batches = read_table(str(tmp_path / "list.csv"))
    found = [row for batch in batches for row in batch.to_pylist()]
    assert found == [{"uri": "a.wav", "title, long": "Rain; wind | sea, all"}]


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


def big_list(path: Path, ending: str, size: int) -> str:
    """A list of four sounds; the third has `size` bytes of notes, of letters and quoted line ends."""
    rows = [
        {"uri": f"{name}.wav", "notes": "x\ny" * (size // 3) if name == "c" else "short", "n": name} for name in "abcd"
    ]
    file = path / f"list.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif ending == "csv":
        with open(file, "w", newline="") as text:
            writer = csv.DictWriter(text, ["uri", "notes", "n"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows))
    return str(file)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_cell_of_more_than_a_mebibyte_is_refused_with_its_row_and_can_be_left_out(
    tmp_path: Path, ending: str
) -> None:
    uri = big_list(tmp_path, ending, 3 << 20)
    with pytest.raises(
        SettingsError, match=r"row 3 of .*`c\.wav`. holds 3\.0 MiB in its column `notes`.*; shorten it, .*--columns"
    ):
        list(open_input(uri).entries)
    kept = open_input(uri, columns=["n"])
    assert [entry.own for entry in kept.entries] == [{"n": name} for name in "abcd"]
    assert open_input(uri, columns=["uri"]).own_schema.names == []
    assert len(list(open_input(big_list(tmp_path, ending, (1 << 20) - 30)).entries)) == 4


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_row_that_no_block_can_hold_is_told_by_its_number(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_SMALL", 1 << 19)
    with pytest.raises(SettingsError, match=r"its row 3 holds 2\.\d MiB in its column `notes`"):
        list(open_input(big_list(tmp_path, ending, 5 << 19)).entries)


def test_columns_that_are_not_carried_along_need_not_be_good(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.wav"], "text": ["ours"], "_x": [1], "n": [7]}), tmp_path / "list.parquet")
    uri = str(tmp_path / "list.parquet")
    assert open_input(uri, columns=["n"]).own_schema.names == ["n"]
    with pytest.raises(SettingsError, match="`text`"):
        open_input(uri)
    with pytest.raises(SettingsError, match=r"^columns: .* has no column `m`, but uri, text, _x, n"):
        open_input(uri, columns=["m"])
    with pytest.raises(SettingsError, match=r"^columns: .* is no list"):
        open_input(str(tmp_path), columns=["n"])


def test_a_column_that_parquet_cannot_give_is_refused_by_name(tmp_path: Path) -> None:
    """pyarrow writes nulls of lists of a fixed size so that it cannot read them."""
    table = pa.table({"uri": ["a", "b"], "n": [1, 2], "pair": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))})
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(SettingsError, match=r"the column `pair` of the list .* cannot be read .*--columns"):
        list(open_input(str(tmp_path / "list.parquet")).entries)
    assert len(list(open_input(str(tmp_path / "list.parquet"), columns=["n"]).entries)) == 2
