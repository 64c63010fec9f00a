from __future__ import annotations

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from pipelines.data.corpus_formats import raw_records
from pipelines.export import tables
from pipelines.export.run import run_export
from tests.pipelines.export.made_up import HOSTILE, answer_rows, write_answers


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose answers, names and own columns are hostile."""
    texts = [*HOSTILE, None]
    uris = [f"/sounds/=cmd|' /C calc'!A{at}.wav" for at in range(len(texts))]
    notes = ["+1", "", None, "-1", 'a,b"c', "\x01\ufffe", "x" * 40_000]
    own = {"note": notes, "number": [float("nan"), -1.5, 0, 1, 2, 3, 4]}
    return write_answers(tmp_path / "run", answer_rows(uris, list(texts), **own))


def test_csv_has_no_formula(run: Path, tmp_path: Path) -> None:
    assert run_export(run=run, output=tmp_path / "a.csv", to="csv").rows == 7
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows[:3]] == ["'=1+1", "'@SUM(A1)", "<i>a --> b</i> & c"]
    assert rows[3]["text"] == HOSTILE[3] and rows[4]["text"] == HOSTILE[4]
    assert rows[0]["note"] == "'+1" and rows[3]["note"] == "'-1" and rows[1]["number"] == "-1.5"
    for row in rows:
        for name, value in row.items():
            assert not value.startswith(("=", "+", "@", "\t", "\r")) and (not value.startswith("-") or name == "number")


def test_a_workbook_has_texts_and_numbers_and_no_formula(run: Path, tmp_path: Path) -> None:
    assert run_export(run=run, output=tmp_path / "a.xlsx", to="xlsx").rows == 7
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    rows = list(book.active.iter_rows())
    heads = [cell.value for cell in rows[0]]
    assert all(cell.data_type != "f" for row in rows for cell in row)
    values = [dict(zip(heads, (cell.value for cell in row), strict=True)) for row in rows[1:]]
    assert values[0]["text"] == "'=1+1" and values[4]["text"] == HOSTILE[4]
    assert values[1]["number"] == -1.5 and values[0]["number"] is None and values[0]["sample_rate"] == 8000
    assert len(values[6]["note"]) == 32_767


def test_a_full_sheet_is_followed_by_another(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SHEET_ROWS", 4)
    run_export(run=run, output=tmp_path / "a.xlsx", to="xlsx")
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    assert [len(list(sheet.iter_rows())) for sheet in book.worksheets] == [4, 4, 2]


def test_json_lines_are_the_rows(run: Path, tmp_path: Path) -> None:
    run_export(run=run, output=tmp_path / "a.jsonl", to="jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [*HOSTILE, None]
    assert rows[0]["number"] is None and rows[5]["note"] == "\x01\ufffe" and rows[6]["error_code"] == "not_audio"


def test_records_are_a_corpus(run: Path, tmp_path: Path) -> None:
    assert run_export(run=run, output=tmp_path / "a.json", to="json").rows == 6
    wanted = {name: name for name in ("caption", "instruction", "output", "task")}
    records = [record for _, record in raw_records(str(tmp_path / "a.json"), ".json", wanted)]
    assert [record["output"] for record in records] == list(HOSTILE)  # type: ignore[index]
    assert {record["task"] for record in records} == {"caption"}  # type: ignore[index]
