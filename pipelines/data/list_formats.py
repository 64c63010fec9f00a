"""The formats of a list of sounds: Parquet, CSV and JSONL, as a schema and batches of rows. Any size is streamed."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.storage.uris import redacted
from pipelines.data import parquet

LIST_ENDINGS = (".parquet", ".csv", ".jsonl")
_BATCH = 4096  # rows
_SMALL = 64 << 20  # bytes; read whole, so that a column's type is found from all rows
_READ_AHEAD = 4 << 20


def read_table(uri: str, without: Collection[str] = ()) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and row batches of a Parquet, CSV or JSONL file; raises SettingsError when it is not one.

    without: columns of a Parquet file that its batches leave out, so that they are not read.
    """
    name = storage.public_uri(uri).lower()
    with _readable(uri):
        if name.endswith(".parquet"):
            schema = parquet.schema(uri)
            columns = [each for each in schema.names if each not in without]
            return schema, _batches(uri, parquet.batches(uri, _BATCH, columns))
        file = storage.open_binary(uri, read_ahead=_READ_AHEAD)
        small = file.seek(0, io.SEEK_END) <= _SMALL
        file.seek(0)
        reader = _csv(file, small) if name.endswith(".csv") else _json_lines(file, small)
        batches = reader.to_batches(max_chunksize=_BATCH) if isinstance(reader, pa.Table) else reader
        return reader.schema, _batches(uri, iter(batches))


def _csv(file: BinaryIO, small: bool) -> Any:
    """A table (small: the file is read whole) or a reader of batches; every column is text."""
    from pyarrow import csv

    read: Any = csv.read_csv if small else csv.open_csv
    lines = csv.ParseOptions(newlines_in_values=True)
    header = csv.open_csv(file, parse_options=lines).schema.names
    file.seek(0)
    # note: CSV has no types. What is guessed would change what is carried along: 007 into 7
    text = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
    return read(file, parse_options=lines, convert_options=text)


def _json_lines(file: BinaryIO, small: bool) -> Any:
    """A table (small: the file is read whole) or a reader of batches."""
    from pyarrow import json

    streamed = getattr(json, "open_json", None)  # note: pyarrow before 20 has none
    read: Any = json.read_json if small or streamed is None else streamed
    reader = read(file)
    plain = pa.schema([(each.name, _without_times(each.type)) for each in reader.schema])
    if plain == reader.schema:
        return reader
    file.seek(0)  # JSON has no times: these are strings that look like one
    return read(file, parse_options=json.ParseOptions(explicit_schema=plain))


def _without_times(kind: pa.DataType) -> pa.DataType:
    """`kind` with strings in place of timestamps, inside lists and structs too."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _without_times(each.type)) for each in kind])
    return kind


def _batches(uri: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with _readable(uri):
        yield from batches


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """A damaged list, one that is none, and one whose store fails, as SettingsError."""
    shown = storage.public_uri(uri)
    try:
        yield
    except (pa.ArrowInvalid, parquet.NotParquet) as error:
        problem = f"the list {shown} cannot be read ({redacted(first_line(error))})"
        raise SettingsError("input", problem, "give a whole file of the kind that its ending says") from None
    except UnicodeDecodeError as error:
        raise SettingsError("input", f"the list {shown} is not in UTF-8 ({error})", "save it in UTF-8") from None
    except OSError as error:
        problem = f"{shown} cannot be read ({storage.error_from(error, uri)})"
        raise SettingsError("input", problem, "give a list that can be read") from None
