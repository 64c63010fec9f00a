from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.search.results import write_table
from pipelines.search.run import SearchResult

HITS = [
    {
        "uri": "/sounds/=1+1.wav",
        "start_s": 0.0,
        "end_s": 5.0,
        "score": 0.5,
        "cosine": 0.75,
        "by": "both",
        "caption": "=HYPERLINK(1)",
        "row_id": 3,
    },
    {
        "uri": 'a,"b"\n.wav',
        "start_s": 5.0,
        "end_s": 9.0,
        "score": -0.25,
        "cosine": None,
        "by": "sound",
        "caption": None,
        "row_id": 4,
    },
]


def test_files_are_read_back_by_their_own_readers(tmp_path: Path) -> None:
    table = SearchResult(HITS, 10).to_arrow()
    for ending in ("parquet", "csv", "jsonl"):
        write_table(str(tmp_path / f"hits.{ending}"), table)
    assert pq.read_table(tmp_path / "hits.parquet").to_pylist() == HITS
    assert [json.loads(line) for line in (tmp_path / "hits.jsonl").read_text().splitlines()] == HITS
    with (tmp_path / "hits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "uri": "/sounds/=1+1.wav", "start_s": "0.0", "end_s": "5.0", "score": "0.5", "cosine": "0.75",
        "by": "both",        "caption": "'=HYPERLINK(1)", "row_id": "3",
    }  # fmt: skip
    assert rows[1]["uri"] == 'a,"b"\n.wav' and rows[1]["score"] == "-0.25"  # a number stays one


def test_an_ending_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.parquet"):
        write_table(str(tmp_path / "hits.doc"), SearchResult(HITS, 10).to_arrow())
