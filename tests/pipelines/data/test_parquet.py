"""One reader and one writer of Parquet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.storage import StorageError
from pipelines.data import parquet

TABLE = pa.table({"a": [1, 2, 3, 4, 5], "b": ["x", None, "z", "u", "v"]})


@pytest.fixture
def uri(tmp_path: Path) -> str:
    uri = str(tmp_path / "below" / "part.parquet")
    parquet.write(uri, TABLE, row_group_size=2)
    return uri


def test_what_is_written_is_read_whole_and_by_columns(uri: str) -> None:
    assert parquet.read(uri) == TABLE == pq.read_table(uri)
    assert parquet.read(uri, ["b"]) == TABLE.select(["b"])
    assert parquet.schema(uri) == TABLE.schema
    assert parquet.row_count(uri) == 5
    with parquet.opened(uri) as file:
        assert file.metadata.num_row_groups == 3
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_batches_come_in_order_and_leave_out_what_the_file_lacks(uri: str) -> None:
    found = list(parquet.batches(uri, 4, ["a", "none"]))
    assert pa.Table.from_batches(found) == TABLE.select(["a"])
    assert max(len(batch) for batch in found) <= 4


@pytest.mark.parametrize(
    ("folder", "name", "value"),
    [
        ("year=2024", "year", "2024"),
        ("a b=c%2Fd", "a b", "c/d"),
        ("year=__HIVE_DEFAULT_PARTITION__", "year", None),
        ("year=2024/below", None, None),
        ("a=2024", None, None),  # the file has a column of this name
    ],
)
def test_a_folder_named_by_a_column_gives_it_to_the_rows(
    tmp_path: Path, folder: str, name: str | None, value: str | None
) -> None:
    uri = str(tmp_path / folder / "part.parquet")
    parquet.write(uri, TABLE, row_group_size=2)
    more = {} if name is None else {name: [value] * 5}
    assert parquet.read(uri).to_pydict() == TABLE.to_pydict() | more
    assert parquet.schema(uri).names == [*TABLE.schema.names, *more] == parquet.read(uri).schema.names
    assert pa.Table.from_batches(parquet.batches(uri, 2)).to_pydict() == TABLE.to_pydict() | more
    with parquet.opened(uri) as file:
        assert file.read_row_group(1).to_pydict() == {"a": [3, 4], "b": ["z", "u"]} | {key: [value] * 2 for key in more}
    if name is not None:
        assert parquet.read(uri, [name, "b"]).schema.names == [name, "b"]
        assert parquet.read(uri, ["b"], newer=[name]).to_pydict() == {"b": TABLE["b"].to_pylist()} | more
        assert parquet.read(uri, ["b"]).schema.names == ["b"]
        assert pa.Table.from_batches(parquet.batches(uri, 5, [name])).to_pydict() == more


def test_every_folder_named_by_a_column_gives_it_up_to_one_that_is_not(tmp_path: Path) -> None:
    """As DuckDB reads them from where the first of them lies."""
    uri = str(tmp_path / "not=this" / "data" / "year=2024" / "month=05" / "n=7" / "part.parquet")
    parquet.write(uri, TABLE.replace_schema_metadata({parquet.PARTITION_TYPE: "int16"}), row_group_size=2)
    more = {"year": ["2024"] * 5, "month": ["05"] * 5, "n": [7] * 5}
    assert parquet.read(uri).to_pydict() == TABLE.to_pydict() | more
    assert parquet.schema(uri).names == [*TABLE.schema.names, *more]
    assert parquet.read(uri, ["month", "a"]).to_pydict() == {"month": more["month"], "a": TABLE["a"].to_pylist()}
    assert pa.Table.from_batches(parquet.batches(uri, 2, ["b", "year"])).schema.names == ["b", "year"]
    twice = str(tmp_path / "x=outer" / "b=no" / "x=inner" / "part.parquet")
    parquet.write(twice, TABLE)
    assert parquet.read(twice).to_pydict() == TABLE.to_pydict() | {"x": ["inner"] * 5}


def test_a_column_that_a_folder_gives_has_the_type_that_the_file_tells(tmp_path: Path) -> None:
    for kind, value in (("int16", 7), ("no type", "7")):
        uri = str(tmp_path / "n=7" / f"{value!r}.parquet")
        parquet.write(uri, TABLE.replace_schema_metadata({parquet.PARTITION_TYPE: kind}))
        assert parquet.read(uri, ["n"])["n"].to_pylist() == [value] * 5
        assert str(parquet.schema(uri).field("n").type) == {"no type": "string"}.get(kind, kind)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_reading_leaves_no_thread_that_may_hold_the_file_when_the_interpreter_ends(uri: str) -> None:
    """Such a thread aborted every third `mats history show` at its exit, with code 134."""
    program = f"""
import os
from pipelines.data import carried, parquet
before = os.listdir("/proc/self/task")
parquet.read({uri!r}), parquet.read({uri!r}, ["b"], newer=["a"]), list(parquet.batches({uri!r}, 2))
assert os.listdir("/proc/self/task") == before
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True, timeout=120)


def test_files_are_the_parquet_files_in_order_of_their_names(tmp_path: Path) -> None:
    assert parquet.files(str(tmp_path / "nowhere")) == []
    for name in ("b.parquet", "a.parquet", "c=1/a.parquet", "a.parquet.0123abcd.partial", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [info.path for info in parquet.files(str(tmp_path))] == ["a.parquet", "b.parquet", "c=1/a.parquet"]


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_torn_file_is_no_parquet(uri: str, keep: int) -> None:
    whole = Path(uri).read_bytes()
    Path(uri).write_bytes(whole[:keep] + whole[-4:] if keep else b"")
    for read in (parquet.read, parquet.schema, parquet.row_count, lambda uri: list(parquet.batches(uri, 8))):
        with pytest.raises(parquet.NotParquet, match="no whole Parquet file"):
            read(uri)


def test_damaged_pages_are_no_parquet(uri: str) -> None:
    whole = Path(uri).read_bytes()
    Path(uri).write_bytes(whole[:4] + bytes(len(whole) // 4) + whole[4 + len(whole) // 4 :])
    with pytest.raises(parquet.NotParquet):
        parquet.read(uri)
    with pytest.raises(parquet.NotParquet):
        list(parquet.batches(uri, 8))


def test_a_column_that_is_not_there_is_named(uri: str) -> None:
    with pytest.raises(parquet.NotParquet, match="row_id"):
        parquet.read(uri, ["row_id"])


def test_a_file_that_cannot_be_read_is_another_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        parquet.read(str(tmp_path / "none.parquet"))
    assert caught.value.code == "not_found"
    assert not isinstance(caught.value, parquet.NotParquet)
