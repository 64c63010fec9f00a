"""Parquet files at any URI: one reader, one writer, one error for a file that is none."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any, BinaryIO
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import first_line

READ_AHEAD = 8 << 20
"""Bytes a store is asked for at once where all rows of a file are read."""


class NotParquet(storage.StorageError):
    """A file that is no whole Parquet file, or lacks a column that was asked for."""

    def __str__(self) -> str:
        return self.message


def files(folder: str) -> list[storage.FileInfo]:
    """The Parquet files below a folder, in the order of their names; none where there is no such folder."""
    found = storage.list_files(folder) if storage.is_dir(folder) else ()
    return sorted((info for info in found if info.uri.endswith(".parquet")), key=lambda info: info.uri)


def write(uri: str, table: pa.Table, row_group_size: int | None = None) -> None:
    """Put a table in place as one whole file, with a checksum of every page. Raises StorageError."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=row_group_size, write_page_checksum=True)
    storage.write_bytes(uri, buffer.getvalue())


@contextmanager
def opened(uri: str, read_ahead: int | None = None) -> Iterator[Opened]:
    """A file to read from; `read_ahead` as `storage.open_binary` takes it.

    Raises, while it is open too, NotParquet, and StorageError for what cannot be read.
    """
    with _told_apart(uri):
        far = storage.open_binary(uri) if read_ahead is None else storage.open_binary(uri, read_ahead=read_ahead)
        with far as file:
            yield Opened(uri, file)


def read(uri: str, columns: Sequence[str] | None = None, newer: Sequence[str] = ()) -> pa.Table:
    """All rows, of these columns; `newer` ones are read as well where the file, which may be older, has them.

    Raises NotParquet (also where one of `columns` is missing), StorageError.
    """
    with opened(uri) as file:
        if columns is None:
            return file.read()
        there = file.schema_arrow.names
        wanted = [*columns, *(name for name in newer if name in there)]
        if lacking := [name for name in wanted if name not in there]:
            raise NotParquet("io_error", f"it has no column {', '.join(lacking)}")
        return file.read(wanted).select(wanted)


def batches(uri: str, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows in order, at most `rows` at once. Columns that the file lacks are left out. Raises as `opened`."""
    with opened(uri, READ_AHEAD) as file:
        yield from file.iter_batches(rows, columns=columns)


def schema(uri: str) -> pa.Schema:
    """The columns of a file. Raises NotParquet, StorageError."""
    with opened(uri) as file:
        return file.schema_arrow


def row_count(uri: str) -> int:
    """How many rows a file has. Raises NotParquet, StorageError."""
    with opened(uri) as file:
        return int(file.metadata.num_rows)


NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Folder of rows without a value, as Hive, Spark, DuckDB and pyarrow call it."""
PARTITION_TYPE = b"mats_partition_type"
"""Key in a file's metadata with the type of the column that the name of its folder holds."""
_FOLDER = re.compile(r"(?s)([^=/]+)=([^/]*)")


class Opened:
    """An open file. A folder named `column=value` gives the rows of the files in it one more column, behind their own,
    where they have none of that name, as Hive, Spark, DuckDB and pyarrow read them; and so does each above it, up to
    one that is named otherwise. They are text; that of the innermost may be of another type, PARTITION_TYPE.

    Where columns are named, those that there are not are left out. Reads in this thread: those of pyarrow may let go of
    a Python file after the interpreter has ended (code 134).
    """

    def __init__(self, uri: str, file: BinaryIO) -> None:
        self._file = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        self.metadata = self._file.metadata
        self.schema_arrow: pa.Schema = self._file.schema_arrow
        self._folders = _partitions_of(uri, self.schema_arrow)
        for name, value in self._folders.items():
            self.schema_arrow = self.schema_arrow.append(pa.field(name, value.type))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows."""
        return self._whole(self._file.read(columns=_list(columns), use_threads=False), columns)

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a row group."""
        return self._whole(self._file.read_row_group(number, columns=_list(columns), use_threads=False), columns)

    def iter_batches(
        self, rows: int, row_groups: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, at most `rows` at once."""
        found = self._file.iter_batches(rows, row_groups=row_groups, columns=_list(columns), use_threads=False)
        return (self._whole(batch, columns) for batch in found)

    def _whole(self, rows: Any, columns: Sequence[str] | None) -> Any:
        """Rows, a table or a batch, with the columns of the folders that are asked for."""
        for name, value in self._folders.items():
            if columns is None or name in columns:
                rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        return rows


def _list(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _partitions_of(uri: str, schema: pa.Schema) -> dict[str, pa.Scalar]:
    """Column → value that the folders of a file name, the outermost first, where the file has no such column."""
    kind = ((schema.metadata or {}).get(PARTITION_TYPE) or b"string").decode()
    found: dict[str, pa.Scalar] = {}
    for folder in takewhile(bool, map(_FOLDER.fullmatch, uri.split("/")[-2::-1])):
        name, text = unquote(folder[1]), folder[2]  # type: ignore[index]
        value = pa.scalar(None if text == NULL_PARTITION else unquote(text), pa.string())
        with suppress(pa.ArrowException, ValueError):
            value = value.cast(pa.type_for_alias(kind))
        kind = "string"  # of the innermost alone it is told
        if name not in schema.names:
            found.setdefault(name, value)
    return dict(reversed(found.items()))


@contextmanager
def _told_apart(uri: str) -> Iterator[None]:
    """What pyarrow raises, as NotParquet where the file is at fault and as StorageError where its store is."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise storage.error_from(error, uri) from error
        # note: of a torn file pyarrow raises ArrowInvalid or a plain OSError, as it comes
        raise NotParquet("io_error", f"no whole Parquet file: {first_line(error)}") from None
