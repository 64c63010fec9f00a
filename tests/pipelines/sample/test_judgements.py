"""What people write into a column "right", and what spreadsheets make of a file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.sample.judgements import (
    ROW,
    judgements,
    number_of,
    read_judged,
    said_in,
    same_text,
    whole_number,
    word_of,
)


def judged(values: list[Any], blank: str | None = None) -> list[bool | None]:
    return judgements(values, range(2, 2 + len(values)), blank)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("yes", "no"), ("Y", "N"), (" Yes! ", "No."), (1, 0), (1.0, 0.0), ("1", "0"), ("1.0", "0,0"), (True, False),
        ("TRUE", "false"), ("right", "wrong"), ("Correct", "incorrect"), ("✓", "✗"), ("✔️", "❌"), ("ja", "nein"),
        ("oui", "non"), ("sí", "no"), ("WAHR", "FALSCH"), ("'yes", '"no"'), ("ＹＥＳ", "ＮＯ"), ("ok", "x"), ("✓", "x"),
        ("+", "no"), ("x", "no"), ("X", 0), ("t", "f"),
    ],
)  # fmt: skip
def test_usual_forms(right: Any, wrong: Any) -> None:
    assert judged([right, wrong, "", None, "?", "n/a", right]) == [True, False, None, None, None, None, True]


def test_a_lone_mark_and_empty_cells_must_be_told() -> None:
    with pytest.raises(SettingsError, match=r"holds only x and empty cells.*--blank wrong, or --blank skip"):
        judged(["x", "", "X"])
    with pytest.raises(SettingsError, match="holds only ✓"):
        judged(["✓", None])
    assert judged(["x", "", "x"], "wrong") == [True, False, True]
    assert judged(["x", "", "x"], "skip") == [True, None, True]
    assert judged(["x", "x"]) == [True, True]
    assert judged(["yes", ""]) == [True, None]  # words are not a tick: the rest is to come
    assert judged(["", None]) == [None, None]


def test_what_is_no_judgement_is_told_by_its_row() -> None:
    with pytest.raises(SettingsError, match=r'"maybe" in row 3 and 1 more is no judgement'):
        judged(["yes", "maybe", 0.5])
    with pytest.raises(SettingsError, match="may mean either"):
        judged(["yes", "no", "x"])


def test_numbers_as_spreadsheets_write_them() -> None:
    assert [whole_number(each) for each in (7, 7.0, "7", "7,0", "1.234", "1,234", "12 345", "'9")] == [
        7, 7, 7, 7, 1234, 1234, 12345, 9,
    ]  # fmt: skip
    assert [whole_number(each) for each in (None, "", "seven", 7.5, -1, "nan")] == [None] * 6
    assert word_of(True) == word_of(1.0) == word_of("1.0") == "1"


ROWS = (
    "uri;answer;right;stratum;stratum_rows;row_id\r\n"
    '"/a;b.wav";"a ""dog""\nbarks";ja;caption 01/10;1.000;7\r\n;;;;;\r\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n"])
def test_a_csv_that_went_through_a_spreadsheet(tmp_path: Path, encoding: str, first: str) -> None:
    (tmp_path / "a.csv").write_bytes((first + ROWS.replace("dog", "dög")).encode(encoding))
    (row,) = read_judged(str(tmp_path / "a.csv"))
    assert (row["uri"], row["answer"], row["right"], row["row_id"]) == ("/a;b.wav", 'a "dög"\nbarks', "ja", "7")
    assert whole_number(row["stratum_rows"]) == 1000


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.csv", b"uri,correct\n/a,yes\n", "no column row_id, stratum, stratum_rows"),
        ("a.csv", b"", "has no rows"),
        ("a.jsonl", b"{", "cannot be read"),
        ("a.xlsx", b"no workbook", "cannot be read"),
        ("a.parquet", b"no table", "cannot be read"),
        ("a.csv.gz", b"not packed", "cannot be read"),
        ("a.txt", b"", "is no .csv, .jsonl, .xlsx or .parquet"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match=why):
        read_judged(str(tmp_path / name))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_judged(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize("name", ["URI", "uri", '"Uri"', " uri "])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_the_column_asked_for_stands_between(
    tmp_path: Path, name: str, separator: str
) -> None:
    """A heading may hold more of another: "a;b;c" is one column's name here."""
    head, line = separator.join([name, '"a;b;c,d,e"', "Correct"]), separator.join(["/x.wav", "-", "yes"])
    (tmp_path / "a.csv").write_text(f"{head}\n{line}\n")
    (row,) = read_judged(str(tmp_path / "a.csv"), ("uri",))
    assert (row["uri"], row["correct"], row["a;b;c,d,e"], row[ROW]) == ("/x.wav", "yes", "-", 2)


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    text = "uri,correct\n/a.wav,true\n/b.wav,false\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    pq.write_table(pa.table({"URI": ["/a.wav", "/b.wav"], "Correct": [True, False]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"uri": "/a.wav", "correct": true}\n{"uri": "/b.wav", "correct": false}\n')
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.jsonl"):
        rows = read_judged(str(tmp_path / name), ("uri",))
        assert [row["uri"] for row in rows] == ["/a.wav", "/b.wav"]
        assert judged(said_in(rows)) == [True, False], name


def test_of_a_parquet_file_no_more_is_read_than_is_used(tmp_path: Path) -> None:
    columns = {" URI": ["/a.wav"], "Correct": [True], "embedding": [[0.5]], "Only_Channel": [1]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = read_judged(str(tmp_path / "a.parquet"), ("uri",))
    assert row == {"uri": "/a.wav", "correct": True, "only_channel": 1, ROW: 1}
    pq.write_table(pa.table({"file": ["/a.wav"]}), tmp_path / "b.parquet")
    with pytest.raises(SettingsError, match="has no column uri"):
        read_judged(str(tmp_path / "b.parquet"), ("uri",))


def test_the_columns_for_judgements_are_read_under_both_names() -> None:
    assert said_in([{"correct": "y"}, {"correct": ""}]) == ["y", ""]
    assert said_in([{"right": False}, {"right": None}]) == [False, None]
    assert said_in([{"correct": None, "right": "no"}, {"correct": None, "right": ""}]) == ["no", ""]
    assert said_in([{"correct": True, "right": "no"}, {"correct": True, "right": ""}]) == ["no", ""], "a person's"
    assert said_in([{"uri": "a"}]) == [None]


def test_an_answer_is_the_one_in_the_file_whatever_a_spreadsheet_did_to_it() -> None:
    same = [("'-3 dB", "-3 dB"), ("a  dog\nbarks ", "a dog barks"), (None, ""), ("", None), (7, "7")]
    assert all(same_text(*each) for each in same)
    assert not same_text("A dog.", "a dog.") and not same_text("", "a dog")


def test_seconds_as_spreadsheets_write_them() -> None:
    assert [number_of(each) for each in (7.5, "7.5", "7,5", " 0 ", "'9", 60)] == [7.5, 7.5, 7.5, 0.0, 9.0, 60.0]
    assert [number_of(each) for each in (None, "", "soon", -1, "nan", "inf")] == [None] * 6
