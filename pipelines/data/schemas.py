"""The columns of answers and audio embeddings: one table of all that a run adds to the rows of its work list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

WINDOWS_TYPE = pa.list_(
    pa.struct([("start_s", pa.float64()), ("weight", pa.float32()), ("embedding", pa.list_(pa.float32()))])
)
SEGMENTS_TYPE = pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())]))
NEIGHBORS_TYPE = pa.list_(
    pa.struct(
        [
            ("row", pa.int64()),
            ("caption", pa.string()),
            ("source", pa.string()),
            ("weight", pa.float32()),
            ("score", pa.float32()),
        ]
    )
)


@dataclass(frozen=True)
class Column:
    """A column that a model stage writes. option: the setting that asks for it; empty for one that is always there."""

    name: str
    type: pa.DataType
    option: str = ""


# A new column goes to the end: readers of older outputs see nulls in its place.
ANSWER_COLUMNS = (
    Column("text", pa.string()),
    Column("segments", SEGMENTS_TYPE),
    Column("model_fingerprint", pa.string()),
    Column("run_id", pa.string()),
    Column("embedding", pa.list_(pa.float32()), option="with_embedding"),
    Column("neighbors", NEIGHBORS_TYPE, option="explain"),
)
EMBEDDING_COLUMNS = (Column("windows", WINDOWS_TYPE), Column("run_id", pa.string()))
WORK_COLUMNS = ("entry_id", "last", "part", "part_row")
"""Columns of the work list that answers do not have."""
ROW_COLUMNS = frozenset(
    ["row_id", "decoded_s", *WORK_COLUMNS, *(each.name for each in (*ANSWER_COLUMNS, *EMBEDDING_COLUMNS))]
)
"""Columns that the work list and a run add to the manifest's; a user's list may not have them."""
NESTED_COLUMNS = frozenset(each.name for each in (*ANSWER_COLUMNS, *EMBEDDING_COLUMNS) if pa.types.is_nested(each.type))
"""Those of them that hold lists, which need not be read to know what a table asks."""


def wanted_columns(columns: tuple[Column, ...], options: Any) -> list[Column]:
    """Those that are always there, and those whose option is set on `options`."""
    return [each for each in columns if not each.option or getattr(options, each.option)]


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType) -> pa.Table:
    """`table` with the column replaced or added."""
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)
    at = table.schema.get_field_index(name)
    return table.append_column(name, array) if at < 0 else table.set_column(at, pa.field(name, kind), array)


def timed(rows: pa.Table, **values: float) -> pa.Table:
    """Add measures of a block to its rows: moments (`…_at`, epoch), and seconds of work (`…_s`) and counts, of which
    every row gets an equal share.

    The driver sums them up and drops them again.
    """
    for name, value in values.items():
        share = value if name.endswith("_at") else value / max(1, len(rows))
        rows = with_column(rows, f"_{name}", [share] * len(rows), pa.float64())
    return rows
