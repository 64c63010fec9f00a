from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.search import where
from pipelines.search.where import rows_where

ROWS = pa.table(
    {
        "duration_s": [1.0, 7.5, None, 30.0],
        "format": ["wav", "mp3", "wav", "wav"],
        "my col": ["a", "b", "c", "d"],
        "windows": [[], [], [], []],
    }
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("duration_s > 5 and format = 'wav'", [3]),
        ("duration_s IS NULL", [2]),
        ("\"my col\" in ('a', 'd')", [0, 3]),
        ("format like 'w%' -- those", [0, 2, 3]),
        ("duration_s = (select max(duration_s) from run)", [3]),
        ("false", []),
    ],
)
def test_conditions(condition: str, expected: list[int]) -> None:
    rows = pa.concat_tables([ROWS.slice(0, 2), ROWS.slice(2)])  # in chunks, as an index has them
    assert [row for row, holds in enumerate(rows_where(rows, condition)) if holds] == expected


def test_a_condition_reaches_nothing_but_the_rows(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nhunter2\n")
    taken, others = tmp_path / "taken.csv", pa.table({"word": ["in memory"]})
    for condition in (
        f"exists (select * from read_csv('{secret}'))",
        f"exists (select * from '{secret}')",
        f"(select content from read_text('{secret}')) like '%hunter2%'",
        f"exists (select * from glob('{tmp_path}/*'))",
        f"exists (select * from read_blob('{secret}'))",
        "exists (select * from others)",
        f"true); copy run to '{taken}'; --",
        f"true); attach '{taken}'; --",
        "true); set enable_external_access = true; --",
        "true); install httpfs; load httpfs; --",
        "true) union select 99 from (select 1",
        "getenv('HOME') is not null",
        "exists (select * from duckdb_secrets())",
        "exists (select * from read_parquet('s3://bucket/x.parquet'))",
        "exists (select * from sqlite_scan('a.db', 'b'))",
        "no_column = 1",
        "format +",
        "",
        "\x00",
    ):
        with pytest.raises(SettingsError, match="where"):
            rows_where(ROWS, condition)
    assert not taken.exists() and len(others) == 1


def test_a_condition_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "SECONDS", 0.5)
    with pytest.raises(SettingsError, match="longer than"):
        rows_where(ROWS, "(select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = 7) > 0")
