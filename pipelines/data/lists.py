"""Lists (Parquet, CSV, JSONL) of any size as row batches, and what is wrong with one that cannot be read."""

from __future__ import annotations

import csv as plain_csv
import gzip
import io
import json as plain_json
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.storage.uris import redacted
from pipelines.data import parquet
from pipelines.data.carried import LEAVE_OUT, MOST_CELL, large_cell
from pipelines.data.schemas import map_type

LIST_ENDINGS = (".parquet", ".csv", ".jsonl", ".csv.gz", ".jsonl.gz")
SEPARATORS = ",;\t|"
_BATCH = 4096  # rows
_SMALL = 64 << 20  # bytes; read whole, so that a column's type is found from all rows
_READ_AHEAD = 4 << 20
_LEAST_BLOCK = 1 << 20


def read_table(
    uri: str, without: Collection[str] = (), only: Collection[str] | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and row batches of a Parquet, CSV or JSONL file of any size, the latter two also packed with gzip; raises
    SettingsError when it is not one.

    without: columns that batches leave out; only: those that they have. What a Parquet file has besides is not read.
    """
    name = storage.public_uri(uri).lower()
    with _readable(uri):
        if name.endswith(".parquet"):
            schema = parquet.schema(uri)
            batches = _parquet(uri, _chosen(schema, without, only))
        else:
            file = _unpacked(uri)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            # note: a row must lie in one block
            options = {"block_size": max(_LEAST_BLOCK, min(size, _SMALL) + 1)}
            first = file.readline(MOST_CELL).decode("utf-8-sig", "replace")
            file.seek(0)
            if size <= _SMALL:
                file = _own_memory(file.read())
            if name.removesuffix(".gz").endswith(".csv"):
                reader = _csv(file, size <= _SMALL, options, separator_of(first, "uri"))
            else:
                reader = _json_lines(file, size <= _SMALL, options)
            schema = reader.schema
            tables = reader.to_batches(max_chunksize=_BATCH) if isinstance(reader, pa.Table) else reader
            chosen = _chosen(schema, without, only)
            batches = tables if chosen == schema.names else (batch.select(chosen) for batch in tables)
        return schema, _batches(uri, batches)


def _chosen(schema: pa.Schema, without: Collection[str], only: Collection[str] | None) -> list[str]:
    return [name for name in schema.names if name not in without and (only is None or name in only)]


def _parquet(uri: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows in batches that fit into memory; a column that cannot be read is refused by name."""
    with parquet.opened(uri) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    rows = max(1, min(_BATCH, _SMALL // max(1, row_bytes)))
    try:
        yield from parquet.batches(uri, rows, columns)
    except parquet.NotParquet as error:
        for name in columns if len(columns) > 1 else ():
            try:
                for _ in parquet.batches(uri, rows, [name]):
                    pass
            except parquet.NotParquet:
                problem = f"the column `{name}` of the list {storage.public_uri(uri)} cannot be read ({error.message})"
                raise SettingsError("input", problem, f"give it as text, {LEAVE_OUT}") from None
        raise


def _unpacked(uri: str) -> BinaryIO:
    """A file to read from its start; one that ends in .gz as what is packed in it."""
    file = storage.open_binary(uri, read_ahead=_READ_AHEAD)
    if not storage.public_uri(uri).lower().endswith(".gz"):
        return file
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]


@contextmanager
def opened_text(uri: str) -> Iterator[io.TextIOWrapper]:
    """A file of lines, packed or not. Raises SettingsError, while it is open too, where it cannot be read."""
    with _readable(uri), _unpacked(uri) as file:
        yield io.TextIOWrapper(file, "utf-8-sig")


def _own_memory(content: bytes) -> Any:
    """Bytes as a file of Arrow's own. Its threads may outlive the interpreter, and must not let go of Python's then."""
    sink = pa.BufferOutputStream()
    sink.write(content)
    return pa.BufferReader(sink.getvalue())


def _csv(file: BinaryIO, small: bool, options: dict[str, int], separator: str) -> Any:
    """A table (small: the file is read whole) or a reader of batches; every column is text."""
    from pyarrow import csv

    read: Any = csv.read_csv if small else csv.open_csv
    lines = csv.ParseOptions(newlines_in_values=True, delimiter=separator)
    header = csv.open_csv(file, read_options=csv.ReadOptions(**options), parse_options=lines).schema.names
    file.seek(0)
    names = [name.strip() for name in header]
    reading = csv.ReadOptions(**options, column_names=names, skip_rows_after_names=1)  # the row of the names
    # note: CSV has no types. What is guessed would change what is carried along: 007 into 7
    text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return read(file, read_options=reading, parse_options=lines, convert_options=text)


def separator_of(header: str, needed: str) -> str:
    """What separates the fields of a CSV: a comma, unless its first line has the column `needed` with another only;
    where none has it, what makes most names, to tell them. Spaces around names do not count."""

    def names(separator: str) -> list[str]:
        found = next(plain_csv.reader([header.rstrip("\r\n")], delimiter=separator), [])
        return [name.strip() for name in found]

    most = max(SEPARATORS, key=lambda each: len(names(each)))
    return next((each for each in SEPARATORS if needed.strip() in names(each)), most)


def _json_lines(file: BinaryIO, small: bool, options: dict[str, int]) -> Any:
    """A table (small: the file is read whole) or a reader of batches."""
    from pyarrow import json

    streamed = getattr(json, "open_json", None)  # note: pyarrow before 20 has none
    read: Any = json.read_json if small or streamed is None else streamed
    reading = json.ReadOptions(**options)
    reader = read(file, read_options=reading)
    times_as_text = partial(map_type, change=lambda kind: pa.string() if pa.types.is_timestamp(kind) else kind)
    plain = pa.schema([(each.name, times_as_text(each.type)) for each in reader.schema])
    if plain == reader.schema:
        return reader
    file.seek(0)  # JSON has no times: these are strings that look like one
    return read(file, read_options=reading, parse_options=json.ParseOptions(explicit_schema=plain))


def _batches(uri: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with _readable(uri):
        yield from batches


def without_large_cells(uri: str, batches: Iterable[pa.RecordBatch], named_by: str = "uri") -> Iterator[pa.RecordBatch]:
    """The batches of a list; raises SettingsError, with its row, for a cell of more than MOST_CELL bytes.

    named_by: the column that names a row's sound.
    """
    before = 0
    for batch in batches:
        found = large_cell(batch)
        if found is not None:
            row, name, size = found
            named = storage.public_uri(str(batch[named_by][row].as_py()))[:200]
            raise too_large(uri, f"row {before + row + 1} of", name, size, f" (`{named}`)")
        before += len(batch)
        yield batch


def too_large(uri: str, row: str, column: str, size: int, named: str = "") -> SettingsError:
    """The refusal of a list for a cell that is too large to be carried along."""
    where = f"{row} the list {storage.public_uri(uri)}{named}"
    problem = f"{where} holds {size / 2**20:.1f} MiB in its column `{column}`, and a cell may hold 1 MiB"
    return SettingsError("input", problem, f"shorten it, {LEAVE_OUT}")


def _row_too_long(uri: str) -> str | None:
    """Which row of a CSV or JSONL list has a cell that no block can hold, and which cell that is; None where none."""
    plain_csv.field_size_limit(1 << 40)
    with _unpacked(uri) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
        found: Iterable[tuple[int, dict[str, Any]]]
        if storage.public_uri(uri).lower().removesuffix(".gz").endswith(".csv"):
            found = enumerate(plain_csv.DictReader(text, restkey=""), 1)
        else:
            found = ((number, plain_json.loads(line)) for number, line in enumerate(text, 1) if len(line) > MOST_CELL)
        for number, row in found:
            sizes = {name: len(str(value)) for name, value in row.items()}
            name = max(sizes, key=lambda each: sizes[each], default="")
            if name and sizes[name] > MOST_CELL:
                return f"row {number} holds {sizes[name] / 2**20:.1f} MiB in its column `{name}`"
    return None


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """A damaged list, one that is none, and one whose store fails, as SettingsError."""
    shown = storage.public_uri(uri)
    try:
        yield
    except (pa.ArrowException, parquet.NotParquet) as error:
        if isinstance(error, MemoryError):
            raise
        told = None
        if "straddl" in str(error) or "block size" in str(error):
            with suppress(ValueError, OSError, storage.StorageError, plain_csv.Error):
                told = _row_too_long(uri)
        if told is not None:
            raise SettingsError("input", f"the list {shown} cannot be read: its {told}", "shorten it") from None
        problem = f"the list {shown} cannot be read ({redacted(first_line(error))})"
        raise SettingsError("input", problem, "give a whole file of the kind that its ending says") from None
    except UnicodeDecodeError as error:
        raise SettingsError("input", f"the list {shown} is not in UTF-8 ({error})", "save it in UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f"the list {shown} cannot be read ({first_line(error)})"
        raise SettingsError("input", problem, "give a whole file, packed with gzip") from None
    except OSError as error:
        problem = f"{shown} cannot be read ({storage.error_from(error, uri)})"
        raise SettingsError("input", problem, "give a list that can be read") from None
