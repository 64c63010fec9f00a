from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.compact import run_compact
from pipelines.serve import catalog
from pipelines.serve.catalog import open_catalog
from pipelines.settings.compact import CompactSettings
from tests.pipelines.pages.made_up import error, row


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))


def write_part(run: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """A part file of a run."""
    (run / "answers").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), run / "answers" / name)


def rows(first: int, *texts: str) -> list[dict[str, Any]]:
    return [row(first + at, f"/in/{first + at}.wav", text=text) for at, text in enumerate(texts)]


def texts_of(found: catalog.Catalog, mask: np.ndarray) -> list[str]:
    return [each["text"] for each in found.listed(np.flatnonzero(mask))]


def test_rows_come_in_order_of_their_ids_over_all_parts(tmp_path: Path) -> None:
    write_part(tmp_path, "part-b.parquet", rows(0, "one", "two"))
    write_part(tmp_path, "part-a.parquet", rows(2, "three", "four"))
    found = open_catalog(str(tmp_path))
    assert found.rows == 4
    assert texts_of(found, np.ones(4, bool)) == ["one", "two", "three", "four"]
    assert found.by_ids([3, 1, 99])[3]["text"] == "four"
    assert found.place_of(3) == ("part-a.parquet", 1) and found.place_of(9) is None
    assert found.values["task"] == {"caption": 4}


def test_words_are_found_at_the_beginning_of_words(tmp_path: Path) -> None:
    write_part(tmp_path, "p.parquet", rows(0, "A dog-bark; rain.", "Dogs bark.", "A hotdog.", "", "RAIN, “dog”"))
    found = open_catalog(str(tmp_path))
    assert texts_of(found, found.with_words(["dog"])) == ["A dog-bark; rain.", "Dogs bark.", "RAIN, “dog”"]
    assert texts_of(found, found.with_words(["dog", "rain"])) == ["A dog-bark; rain.", "RAIN, “dog”"]
    assert not found.with_words(["xylophone"]).any()


def test_blocks_are_joined_and_every_row_is_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 7 rows over parts of 5: every third row has the word, wherever it stands."""
    monkeypatch.setattr(catalog, "BLOCK", 7)
    for part in range(6):
        first = 5 * part
        texts = ["a bird sings" if row % 3 == 0 else "a car" for row in range(first, first + 5)]
        write_part(tmp_path, f"p{part}.parquet", rows(first, *texts))
    found = open_catalog(str(tmp_path))
    assert np.flatnonzero(found.with_words(["bird"])).tolist() == list(range(0, 30, 3))
    assert found.where("text = ?", ["a car"]).sum() == 20


def test_a_run_that_was_continued_adds_its_parts_and_nothing_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(tmp_path, "p0.parquet", rows(0, "one", "two"))
    open_catalog(str(tmp_path)).close()
    write_part(tmp_path, "p1.parquet", rows(2, "three"))
    read: list[int] = []
    found = open_catalog(str(tmp_path), lambda done, of: read.append(of))
    assert read == [1] and found.rows == 3
    assert texts_of(found, found.with_words(["thr"])) == ["three"] and found.place_of(2) == ("p1.parquet", 0)
    found.close()
    assert open_catalog(str(tmp_path), lambda done, of: read.append(of)).rows == 3 and read == [1]


def test_a_part_that_is_gone_takes_its_rows_along(tmp_path: Path) -> None:
    write_part(tmp_path, "p0.parquet", rows(0, "one", "two"))
    write_part(tmp_path, "p1.parquet", rows(2, "three"))
    open_catalog(str(tmp_path)).close()
    (tmp_path / "answers" / "p0.parquet").unlink()
    found = open_catalog(str(tmp_path))
    assert texts_of(found, np.ones(found.rows, bool)) == ["three"]


def test_rows_that_were_pruned_are_not_there(tmp_path: Path) -> None:
    write_part(tmp_path, "p0.parquet", rows(0, "one", "two", "three"))
    (tmp_path / "_run.json").write_text(json.dumps({"pruned": [[1, 1]]}))
    found = open_catalog(str(tmp_path))
    assert texts_of(found, np.ones(found.rows, bool)) == ["one", "three"]
    assert found.place_of(2) == ("p0.parquet", 2) and found.place_of(1) is None


def test_older_runs_lack_columns_and_failed_rows_have_no_text(tmp_path: Path) -> None:
    write_part(tmp_path, "p.parquet", [*rows(0, "one"), error(1, "/in/b.wav", "timeout", "too slow")])
    found = open_catalog(str(tmp_path))
    assert found.by_ids([0])[0]["confidence"] is None and found.confident == 0
    assert found.values["error_code"] == {"timeout": 1}


def test_a_catalog_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    write_part(tmp_path, "p.parquet", rows(0, "one"))
    place = open_catalog(str(tmp_path)).place
    place.write_bytes(b"torn")
    assert open_catalog(str(tmp_path)).rows == 1


def test_a_log_that_a_killed_server_left_doubles_nothing(tmp_path: Path) -> None:
    """As when it was killed while it added rows: its copy is there, with DuckDB's log beside it."""
    write_part(tmp_path, "p0.parquet", rows(0, "one", "two"))
    found = open_catalog(str(tmp_path))
    found.close()
    draft = found.place.with_suffix(".partial")
    killed = tmp_path / "killed"
    shutil.copyfile(found.place, killed)
    with duckdb.connect(str(killed)) as database:
        database.execute("SET wal_autocheckpoint = '1GB'")
        database.execute("INSERT INTO rows SELECT * FROM rows")
        shutil.copyfile(found.place, draft)
        shutil.copyfile(f"{killed}.wal", f"{draft}.wal")
    write_part(tmp_path, "p1.parquet", rows(2, "three"))
    again = open_catalog(str(tmp_path))
    assert texts_of(again, np.ones(again.rows, bool)) == ["one", "two", "three"]
    assert [path.suffix for path in found.place.parent.iterdir() if path.suffix in (".partial", ".wal")] == []


@pytest.mark.parametrize("column", ["task", "format", "only_channel"])
def test_the_column_that_folders_of_a_compaction_are_named_by_is_there_again(tmp_path: Path, column: str) -> None:
    facts = {"task": ["QA", "caption"], "format": ["a/b=c", "flac"], "only_channel": [1, None]}[column]
    table = [row(at, f"/in/{at}.wav") | {"only_channel": 0, column: value} for at, value in enumerate(facts)]
    write_part(tmp_path / "run", "p.parquet", table)
    (tmp_path / "run" / "_run.json").write_text(json.dumps({"job": "caption", "status": "complete"}))
    run_compact(CompactSettings(input=str(tmp_path / "run"), output=str(tmp_path / "few"), partition_by=column))
    found = open_catalog(str(tmp_path / "few"))
    assert [found.by_ids([at])[at][column] for at in range(2)] == facts


def test_parts_are_looked_into_once_and_empty_ones_add_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path, "p0.parquet", rows(0, "one"))
    pq.write_table(pa.Table.from_pylist(rows(0, "x")).slice(0, 0), tmp_path / "answers" / "p1.parquet")
    monkeypatch.setattr("pipelines.data.parquet.row_count", lambda uri: pytest.fail("its footer is read twice"))
    assert open_catalog(str(tmp_path)).rows == 1


def test_a_folder_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no answers"):
        open_catalog(str(tmp_path))
    with pytest.raises(SettingsError, match=r"none is no folder that exists; give the OUTPUT of `mats caption`"):
        open_catalog(str(tmp_path / "none"))
