from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.search.results import check_table, write_table
from pipelines.search.run import SearchResult, run_search

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
        check_table(str(tmp_path / "hits.doc"), overwrite=True)


LISTS = {
    "csv": b"uri,start_s,end_s\na.wav,0,1\n",
    "jsonl": b'{"uri": "a.wav", "start_s": 0.0, "end_s": 1.0}\n',
    "parquet": b"mine",
}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_only_what_was_found_before_is_replaced(tmp_path: Path, ending: str) -> None:
    """Nor a list of files in the same columns' beginning, from which such a search may have been asked."""
    out = tmp_path / f"hits.{ending}"
    check_table(str(out), overwrite=False)
    for hits in (HITS, []):
        write_table(str(out), SearchResult(hits, 10).to_arrow())
        check_table(str(out), overwrite=False)
    out.write_bytes(LISTS[ending])
    settings = {"run": str(tmp_path), "query": "rain", "out": str(out)}
    with pytest.raises(SettingsError, match=rf"out: .*hits\.{ending} is there, and is no table .*; .* --overwrite"):
        run_search(**settings)
    assert out.read_bytes() == LISTS[ending]
    check_table(str(out), overwrite=True)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SettingsError, match=r"out: no table can be written to .*: this is a folder"):
        check_table(str(tmp_path / "folder.csv"), overwrite=True)
