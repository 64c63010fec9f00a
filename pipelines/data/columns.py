"""Columns that stages add to Arrow tables."""

from __future__ import annotations

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
