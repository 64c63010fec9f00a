"""The rate is that of the busy window, and the manifest is one of rows that are nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from jobs.benchmarks.scale import Watched, write_manifest
from pipelines.data.schemas import MANIFEST_SCHEMA


def test_start_and_end_do_not_count() -> None:
    """Ten rows a second between 35 and 90 of 100, whatever happened before and after."""
    done = [(8.0, 1), (12.0, 35), (15.0, 65), (17.5, 90), (60.0, 100)]
    assert Watched(done=done).rate(100) == 10.0


def test_the_manifest_has_a_row_a_minute(tmp_path: Path) -> None:
    folder = Path(write_manifest(tmp_path / "m", 7))
    table = pq.read_table(folder / "manifest")
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert table["duration_s"].to_pylist() == [60.0] * 7
    assert len(set(table["chunk_id"].to_pylist())) == 7
    assert json.loads((folder / "_manifest.json").read_text()) == {}
