"""The formats of a corpus: (line, raw record) as a stream, whatever the file's size. Lines count from 1; so do Parquet
rows. A JSON list is parsed record by record: the authors' largest is over a gigabyte."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import json_stream, parquet
from pipelines.data.json_stream import JsonStream
from pipelines.data.lists import separator_of

READ_AHEAD = 8 << 20
MOST_ROW_LINES = 100
"""Lines a row of CSV may be written over; one that takes more was opened by a stray quote."""

REMEDY = (
    "say which column holds the captions: --columns caption=NAME, or in YAML, below the set, `columns: {caption: NAME}`"
)
_PARQUET_BATCH = 4096


@dataclass(frozen=True)
class Broken:
    """A record that does not parse: the problem's code and what the parser said."""

    code: str
    detail: str


Raw = tuple[int, "dict[str, Any] | Broken"]


def raw_records(uri: str, ending: str, wanted: Mapping[str, str]) -> Iterator[Raw]:
    """(line, fields or Broken) of every record. wanted: our field → theirs; other columns may be left out.

    Raises SettingsError when the file cannot be opened, is not what its ending says, or has no caption column.
    """
    try:
        if ending == ".parquet":
            yield from _parquet(uri, wanted)
            return
        with storage.open_binary(uri, read_ahead=READ_AHEAD) as file:
            if ending == ".csv":
                yield from _csv(file, uri, wanted)
            elif ending == ".json":
                yield from _json(file, uri)
            else:
                yield from _json_lines(file)
    except (storage.StorageError, OSError) as error:  # it may fail half way, too
        problem = f"{storage.public_uri(uri)} cannot be read ({error})"
        raise SettingsError("corpus", problem, "give a whole file that can") from None


def _json_lines(file: BinaryIO) -> Iterator[Raw]:
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            yield number, Broken("not_text", str(error))
        except (ValueError, RecursionError) as error:
            yield number, Broken("broken_line", str(error))
        else:
            yield number, _object(value)


def _object(value: Any) -> dict[str, Any] | Broken:
    return value if isinstance(value, dict) else Broken("not_an_object", f"{type(value).__name__}")


def _csv(file: BinaryIO, uri: str, wanted: Mapping[str, str]) -> Iterator[Raw]:
    """A row that cannot be used counts once for every line it took: a stray quote swallows the records after it."""
    csv.field_size_limit(json_stream.MOST_RECORD)
    # note: what is not UTF-8 becomes surrogates, which the record's check finds
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    separator = separator_of(text.readline(json_stream.MOST_RECORD), wanted.get("caption", "caption"))
    text.seek(0)
    reader = csv.reader(text, strict=True, delimiter=separator)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None:
                problem = f"{storage.public_uri(uri)} is no CSV file ({error})"
                raise SettingsError("corpus", problem, "give a CSV file with a header") from None
            yield from _swallowed(line, reader.line_num, str(error))
            continue
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            _check_header(header, uri, wanted)
        elif len(row) != len(header):
            yield from _swallowed(line, reader.line_num, f"{len(row)} fields, the header has {len(header)}")
        elif reader.line_num - line >= MOST_ROW_LINES:
            yield from _swallowed(line, reader.line_num, f"a row of {reader.line_num - line + 1} lines")
        else:
            # note: CSV has no null; an empty cell says nothing
            yield line, {name: value or None for name, value in zip(header, row, strict=True)}


def _swallowed(first: int, last: int, why: str) -> Iterator[Raw]:
    """The lines of a row that cannot be used."""
    yield first, Broken("broken_line", why)
    for line in range(first + 1, last + 1):
        yield line, Broken("broken_line", f"inside the row that begins in line {first}")


def _check_header(names: list[str], uri: str, wanted: Mapping[str, str]) -> None:
    theirs = wanted.get("caption", "caption")
    if theirs not in names:
        problem = f"{storage.public_uri(uri)} has no column `{theirs}`, but {', '.join(names) or 'none at all'}"
        raise SettingsError("corpus", problem, REMEDY)


def _parquet(uri: str, wanted: Mapping[str, str]) -> Iterator[Raw]:
    _check_header(parquet.schema(uri).names, uri, wanted)
    batches = parquet.batches(uri, _PARQUET_BATCH, list(dict.fromkeys(wanted.values())))
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


def _json(file: BinaryIO, uri: str) -> Iterator[Raw]:
    def fail(line: int, why: str) -> None:
        problem = f"{storage.public_uri(uri)} cannot be read beyond line {line}: {why}"
        remedy = 'give a JSON list, an object with a list "annotation", or JSON lines in a .jsonl'
        raise SettingsError("corpus", problem, remedy)

    reader = JsonStream(io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape"), fail)
    first = reader.peek()
    if first not in ("[", "{"):
        reader.fail(f"it begins with {first!r}" if first else "it is empty")
    for line, value in reader.items_under("annotation") if first == "{" else reader.items():
        yield line, _object(value)
    reader.end()
