"""What a job has written, as tables: what the results of jobs have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mats_core.errors import choice
from pipelines.data import generations, parquet

if TYPE_CHECKING:
    import pandas as pd


class Rows:
    """Rows that lie in Parquet files: all of them at once. What is larger than memory, read file by file."""

    @abstractmethod
    def rows_at(self) -> str:
        """The folder of the files."""

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, of these columns or all, in the order of the work list where they have one; without those that
        `--prune` leaves out.

        Raises KeyError for a column that there is not, StorageError where the files cannot be read.
        """
        return read_rows(self.rows_at(), columns)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """As `to_arrow`, for pandas."""
        return self.to_arrow(columns).to_pandas()


def read_rows(folder: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of all files that count in a folder, by `row_id` where they have one. See `Rows.to_arrow`."""
    pruned = pruned_rows(folder.rstrip("/").rpartition("/")[0])
    tables, every = [], dict[str, None]()
    for info in generations.files(folder):
        with parquet.opened(info.uri, parquet.READ_AHEAD) as file:
            there = file.schema_arrow.names
            every.update(dict.fromkeys(there))
            wanted = there if columns is None else [name for name in there if name in (*columns, "row_id")]
            tables.append(file.read(wanted))
    rows = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
    for name in columns or ():
        if name not in rows.column_names:
            raise KeyError(f'there is no column "{name}"; {choice(name, every) if every else "there are no rows"}')
    if "row_id" in rows.column_names:
        rows = without_rows(rows.sort_by("row_id"), pruned)
    return rows if columns is None else rows.select(list(columns))


Ranges = Sequence[Sequence[int]]
"""Of row ids: first and last of each."""


def pruned_rows(output: str) -> Ranges:
    """The rows of OUTPUT that are left out of all that is made of it, since their files are gone (`--prune`)."""
    try:
        run = generations.told(output, "_run.json") if output else None
    except ValueError:
        run = None
    return (run or {}).get("pruned") or []


def without_rows(table: pa.Table, ranges: Ranges) -> pa.Table:
    """`table` less the rows of these ids; all of it where it has no `row_id`."""
    if not ranges or "row_id" not in table.column_names:
        return table
    kept = kept_rows(table["row_id"].to_numpy(), ranges)
    return table if kept.all() else table.filter(pa.array(kept))


def kept_rows(ids: np.ndarray, ranges: Ranges) -> np.ndarray:
    """bool [N]: which of the row ids [N] are in none of the ranges."""
    if not ranges:
        return np.ones(len(ids), bool)
    firsts, lasts = np.array(sorted(map(tuple, ranges))).T
    at = np.searchsorted(firsts, ids, side="right") - 1
    return ~((at >= 0) & (ids <= lasts[at]))
