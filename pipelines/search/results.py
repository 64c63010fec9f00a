"""What was found, as a file."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import parquet
from pipelines.pages.cells import plain_cell

COLUMNS = pa.schema(
    {
        "uri": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "score": pa.float64(),
        "cosine": pa.float64(),
        "by": pa.string(),
        "caption": pa.string(),
        "row_id": pa.int64(),
    }
)


def write_table(out: str, table: pa.Table) -> None:
    """Write a table as its ending says: .parquet, .csv or .jsonl. Raises SettingsError for another one."""
    ending = out.rpartition(".")[2].lower()
    if ending == "parquet":
        parquet.write(out, table)
        return
    rows = table.to_pylist()
    if ending == "csv":
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow(table.schema.names)
        writer.writerows([plain_cell(value) for value in row.values()] for row in rows)
        text = file.getvalue()
    elif ending == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        raise SettingsError("out", f"{storage.public_uri(out)} is none of .parquet, .csv, .jsonl", "choose one of them")
    storage.write_bytes(out, text.encode("utf-8", "surrogatepass"))
