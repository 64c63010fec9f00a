"""Own columns of every Arrow type: carried along as they are, or refused by name before work."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.data.carried import carried_schema, large_cell, plain_values
from pipelines.data.inputs import open_input
from pipelines.settings.archive import LimitSettings
from tests.arrow_types import COLUMNS, REFUSED, same_values


@pytest.mark.parametrize("name", sorted(COLUMNS))
@pytest.mark.parametrize("inside", ["", "list", "struct", "map"])
def test_a_column_of_any_type_comes_back_from_its_plain_values(name: str, inside: str) -> None:
    column = COLUMNS[name]
    if inside == "list":
        column = pa.ListArray.from_arrays(pa.array([0, 1, len(column)], pa.int32()), column)
    elif inside == "struct":
        column = pa.StructArray.from_arrays([column], ["inner"])
    elif inside == "map":
        keys = pa.array([f"k{index}" for index in range(len(column))])
        column = pa.MapArray.from_arrays(pa.array([0, 1, len(column)], pa.int32()), keys, column)
    if inside and name == "run_end":  # pyarrow decodes none inside other types
        with pytest.raises(SettingsError, match=r"`own` of the list is .*run_end_encoded"):
            carried_schema(pa.schema([("own", column.type)]), "the list")
        return
    (kept,) = carried_schema(pa.schema([("own", column.type)]), "the list")
    back = pa.array(plain_values(column), kept.type)
    back.validate(full=True)
    assert same_values(back, column)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_type_that_no_file_can_hold_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=r"the column `mine` of the list is .* not carried along.*--columns"):
        carried_schema(pa.schema([("fine", pa.int8()), ("mine", REFUSED[name])]), "the list")


def test_a_value_is_the_same_whatever_stands_beside_it() -> None:
    """An entry is known by its values: a moment too far away must not change those in its batch."""
    near, far = datetime.datetime(2024, 1, 1), 253402300800000000
    column = pa.array([1704067200000000, far], pa.timestamp("us"))
    assert plain_values(column) == [near, far]
    assert plain_values(column.slice(0, 1)) == [near]
    assert plain_values(pa.array([5], pa.time64("ns"))) == [5]
    assert plain_values(pa.array([decimal.Decimal("1.50")])) == [decimal.Decimal("1.50")]


def test_every_type_of_a_parquet_list_goes_through_the_work_list_and_stays_the_same_entry(tmp_path: Path) -> None:
    rows = 3
    columns = {name: column for name, column in COLUMNS.items() if "run_end" not in name}
    table = pa.table({"uri": [f"{index}.wav" for index in range(rows)], **columns})
    pq.write_table(table, tmp_path / "list.parquet")
    for expected in ((rows, 0), (0, rows)):
        given = open_input(str(tmp_path / "list.parquet"))
        work = WorkList(str(tmp_path / "work"), given.own_schema)
        with Scanner(60.0, LimitSettings()) as scanner:
            counts, known = work.extend(given, scanner, {})
        assert (counts.files, known) == expected
    kept = WorkList(str(tmp_path / "work")).read(0, rows)
    for name, column in columns.items():
        assert same_values(kept[name].combine_chunks(), column), name


def test_an_output_that_was_begun_with_other_types_goes_on(tmp_path: Path) -> None:
    """Dictionaries and lists of a fixed size were once kept as they stood."""
    own = pa.schema([("kind", pa.dictionary(pa.int32(), pa.string())), ("pair", pa.list_(pa.int8(), 2))])
    old = WorkList(str(tmp_path / "work"), pa.schema([("kind", pa.string()), ("pair", pa.list_(pa.int8()))]))
    old.schema = pa.schema([own.field(each.name) if each.name in own.names else each for each in old.schema])
    table = pa.table(
        {"uri": ["a.wav"], "kind": pa.array(["x"]).dictionary_encode(), "pair": pa.array([[1, 2]], own.field(1).type)}
    )
    pq.write_table(table, tmp_path / "list.parquet")
    for work in (old, None):
        given = open_input(str(tmp_path / "list.parquet"))
        work = work or WorkList(str(tmp_path / "work"), given.own_schema)
        with Scanner(60.0, LimitSettings()) as scanner:
            counts, known = work.extend(given, scanner, {})
        assert (counts.files, known) == ((1, 0) if work is old else (0, 1))


def test_the_first_cell_that_is_too_large_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.carried.MOST_CELL", 100)
    values: list[Any] = ["x", "y" * 80, json.dumps("z" * 200)]
    batch = pa.record_batch({"a": values, "b": [[1], [2], [3] * 50]})
    assert large_cell(batch.slice(0, 2)) is None
    found = large_cell(batch)
    assert found is not None
    assert found[:2] == (2, "a")
