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
from pipelines.pages.render import check_file

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


_LONGEST_ROW = 1 << 20
ENDINGS = ("parquet", "csv", "jsonl")


def check_table(out: str, overwrite: bool) -> None:
    """Raise SettingsError for an ending that `write_table` does not know, where nothing can be written, and where a
    file is that is no table of ours, unless `overwrite`."""
    if _ending(out) not in ENDINGS:
        raise SettingsError("out", f"{storage.public_uri(out)} is none of .parquet, .csv, .jsonl", "choose one of them")
    check_file(out, "table", _is_ours, overwrite)


def _is_ours(uri: str) -> bool:
    """Whether a file has the columns of what was found; one that is empty is of a search that found nothing."""
    try:
        if _ending(uri) == "parquet":
            with parquet.opened(uri) as file:
                return file.metadata.schema.names == COLUMNS.names  # its own: the folder is whoever's
        with storage.open_binary(uri, read_ahead=1 << 16) as file:
            first = file.readline(_LONGEST_ROW).decode("utf-8", "replace").strip()
        return not first or list(json.loads(first) if first[0] == "{" else first.split(",")) == COLUMNS.names
    except (storage.StorageError, OSError, ValueError):
        return False


def _ending(out: str) -> str:
    return out.rpartition(".")[2].lower()


def write_table(out: str, table: pa.Table) -> None:
    """Write a table as its ending says, one of ENDINGS: see `check_table`."""
    ending = _ending(out)
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
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_bytes(out, text.encode("utf-8", "surrogatepass"))
