"""A list's own columns: the type in which each is carried along, and its values, whatever Arrow type the list has.

A column goes from the list into the work list, as plain values from there into Ray's blocks, part files, and `mats
compact`. Types that one of these does not take are carried in the nearest one that all take, or refused by name.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mats_core.errors import SettingsError, first_line
from pipelines.data.schemas import map_type

MOST_CELL = 1 << 20
"""Bytes of one cell of a list: it stands in every row of its sound, in each of the run's tables."""
LEAVE_OUT = "or name the columns to carry along, without this one, with --columns"
"""What else to do about a column that is not carried along."""


def carried_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a column of type `kind` is carried along: views, run ends, dictionaries, lists of a fixed size
    and extensions as the plain type of their values. Raises ValueError for one that cannot be."""
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return kind  # note: its values are Python's own, and a row is known by them
    return map_type(kind, _plain_type)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    name = str(kind)
    if name in ("string_view", "binary_view"):
        return pa.string() if name == "string_view" else pa.binary()
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return carried_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return carried_type(kind.storage_type)
    if name.startswith("list_view"):
        return pa.list_(carried_type(kind.value_type))
    if name.startswith("large_list_view"):
        return pa.large_list(carried_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):  # note: pyarrow writes nulls of these so that it cannot read them
        return pa.list_(kind.value_type)
    if pa.types.is_struct(kind) and max(Counter(each.name for each in kind).values(), default=1) > 1:
        raise ValueError("it has two fields of one name")
    if pa.types.is_union(kind) or pa.types.is_interval(kind):
        raise ValueError("no Parquet file can hold it")
    return kind


def carried_schema(own: pa.Schema, shown: str) -> pa.Schema:
    """The columns as they are carried along. Raises SettingsError for one that cannot be, found by writing one.

    shown: the list, for messages.
    """
    fields = []
    for each in own:
        try:
            kind = carried_type(each.type)
            _try_out(each.type)
        except (ValueError, NotImplementedError, pa.ArrowException) as error:
            problem = f"the column `{each.name}` of {shown} is {each.type}, which is not carried along"
            raise SettingsError("input", f"{problem} ({first_line(error)})", f"give it as text, {LEAVE_OUT}") from None
        fields.append(pa.field(each.name, kind))
    return pa.schema(fields)


def _try_out(kind: pa.DataType) -> None:
    """Do with a column of this type what a run does; raises what that raises."""
    schema = pa.schema([("row", pa.int64()), ("own", known_type(carried_type(kind)))])
    rows = [{"row": row, "own": value} for row, value in enumerate(plain_values(_plain(pa.nulls(2, kind))))]
    table = pa.Table.from_pylist(rows, schema=schema)
    table = pa.concat_tables([table, table]).combine_chunks().filter(pa.array([True, False] * 2)).sort_by("row")
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    pq.ParquetFile(buffer, pre_buffer=False).read(use_threads=False)


def unfit(rows: list[dict[str, Any]], schema: pa.Schema, error: Exception) -> SettingsError:
    """What to say of rows that could not be written as a table of `schema` (`error`): the column with the value that
    no file can hold."""
    for each in schema:
        try:
            pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([each])), io.BytesIO())
        except (pa.ArrowException, OverflowError) as found:
            problem = f"its column `{each.name}` ({each.type}) has a value that is not carried along"
            return SettingsError("input", f"{problem} ({first_line(found)})", f"give it as text, {LEAVE_OUT}")
    return SettingsError("input", f"its rows cannot be written ({first_line(error)})", f"give it as text, {LEAVE_OUT}")


def known_type(kind: pa.DataType) -> pa.DataType:
    """`kind` with strings for what has no type yet: a column without a value so far, or of objects without a field."""

    def known(inner: pa.DataType) -> pa.DataType:
        empty = pa.types.is_null(inner) or (pa.types.is_struct(inner) and not inner.num_fields)
        return pa.string() if empty else inner

    return map_type(kind, known)


def plain_values(column: pa.Array) -> list[Any]:
    """The values as Python's, from which an array of the column's carried type can be made again.

    A moment or span that Python cannot hold (beyond the year 9999, in a time zone unknown here, nanoseconds of a day)
    is its number of units. That depends on the value alone, not on those beside it.
    """
    if _has(column.type, lambda kind: isinstance(kind, pa.BaseExtensionType) and kind != carried_type(kind)):
        column = _plain(column)
    if not _has(column.type, pa.types.is_time64):
        try:
            return list(column.to_pylist())
        except (OverflowError, ValueError, KeyError, pa.ArrowException):
            pass
    column = _plain(column)
    return [_plain_value(column.slice(index, 1)) for index in range(len(column))]


def _plain(column: pa.Array) -> pa.Array:
    """The column in its carried type."""
    kind = carried_type(column.type)
    while isinstance(column, pa.ExtensionArray) and column.type != kind:
        column = column.storage
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    return column if column.type == kind else column.cast(kind)


def _plain_value(one: pa.Array) -> Any:
    try:
        if not _has(one.type, pa.types.is_time64):
            return one[0].as_py()
    except (OverflowError, ValueError, KeyError, pa.ArrowException):
        pass
    return one.cast(map_type(one.type, _as_number))[0].as_py()


def _as_number(kind: pa.DataType) -> pa.DataType:
    """Integers in the place of moments and spans."""
    if not pa.types.is_temporal(kind):
        return kind
    return pa.int32() if kind.bit_width == 32 else pa.int64()


def _has(kind: pa.DataType, what: Callable[[pa.DataType], bool]) -> bool:
    """Whether the type, or one inside it, is of a kind."""
    found = False

    def look(inner: pa.DataType) -> pa.DataType:
        nonlocal found
        found = found or what(inner)
        return inner

    map_type(kind, look)
    return found


def large_cell(batch: pa.RecordBatch) -> tuple[int, str, int] | None:
    """(row in the batch, column, bytes) of the first cell of more than MOST_CELL bytes; None where there is none."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.nbytes > MOST_CELL:
            for row in range(len(column)):
                size = column.slice(row, 1).nbytes
                if size > MOST_CELL:
                    return row, name, size
    return None
