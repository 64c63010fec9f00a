"""Tables and JSON files of a published set as streams: rows with their lines, objects with their places."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mats_core import storage
from pipelines.data.json_stream import JsonStream
from pipelines.published.folder import AS_PUBLISHED, Folder

Row = dict[str, str]
"""A line of a table by its columns."""
SEPARATORS = ";\t|,"
MOST_CELL = 16 << 20
READ_AHEAD = 8 << 20


def lines(
    folder: Folder, path: str, separator: str = ",", encoding: str = "utf-8-sig", quotes: bool | None = None
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a CSV file or one with another separator. Empty lines are passed over.

    quotes: whether cells may stand in quotes (default: where comma or semicolon separates them).

    Raises SettingsError for what is no text in that encoding and for broken quoting, by line.
    """
    quoted = separator in ",;" if quotes is None else quotes
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    csv.field_size_limit(MOST_CELL)
    with folder.reading(path), storage.open_binary(folder.found[path], read_ahead=READ_AHEAD) as file:
        text = io.TextIOWrapper(file, encoding, newline="")
        reader = csv.reader(text, delimiter=separator, quoting=quoting, skipinitialspace=False)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise folder.wrong(f"{path}:{line}", f"a broken line ({error})") from None
            if any(cell.strip() for cell in row):
                yield line, row


def table(
    folder: Folder,
    role: str,
    separator: str,
    header: Sequence[str] | None,
    needed: Sequence[str],
    more: bool = False,
    encoding: str = "utf-8-sig",
    quotes: bool | None = None,
) -> Iterator[tuple[int, Row]]:
    """(line, row) of a CSV or TSV file with the columns `needed`.

    header: column names of a file that has none of its own. more: lines may have more fields than that, which are
    passed over. Raises SettingsError for missing columns and for lines with another number of fields, by line.
    """
    path = folder.needed(role)
    names = list(header) if header else None
    for line, row in lines(folder, path, separator, encoding, quotes):
        if names is None:
            names = [name.strip() for name in row]
            absent = [name for name in needed if name not in names]
            if absent:
                remedy = AS_PUBLISHED
                if len(names) == 1 and (other := next((mark for mark in SEPARATORS if mark in names[0]), None)):
                    remedy = f"its separator seems to be {other!r}: options: {{separator: {json.dumps(other)}}}"
                raise folder.wrong(path, f"no column {', '.join(absent)} among {', '.join(names)}", remedy)
            continue
        while len(row) > len(names) and not row[-1].strip():
            row.pop()  # note: TUT's lists end their lines with a separator
        if more:
            row = row[: len(names)]
        if len(row) != len(names):
            problem = f"{len(row)} fields where {len(names)} are expected ({', '.join(names)})"
            raise folder.wrong(f"{path}:{line}", problem)
        yield line, {name: cell.strip() for name, cell in zip(names, row, strict=True)}
    if names is None:
        raise folder.wrong(path, f"an empty file, without the columns {', '.join(needed)}")


def objects(folder: Folder, path: str, under: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(place, object) of a JSON list, or of the list that an object has `under` a key, one at a time.

    Raises SettingsError for a file that is none.
    """
    shape = "a JSON list of objects" + (f" under `{under}`" if under else "")
    for index, value in enumerate(_stream(folder, path, shape, lambda stream: _listed(stream, under))):
        if not isinstance(value, dict):
            raise folder.wrong(f"{path}[{index}]", f"not {shape}")
        yield index, value


def members(folder: Folder, path: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of a JSON object, one at a time. Raises SettingsError for a file that is none."""
    yield from _stream(folder, path, "a JSON object", lambda stream: stream.members())


def _listed(stream: JsonStream, under: str | None) -> Iterator[Any]:
    yield from (value for _, value in (stream.items() if under is None else stream.items_under(under)))


def _stream(folder: Folder, path: str, shape: str, walk: Any) -> Iterator[Any]:
    def fail(line: int, why: str) -> None:
        raise folder.wrong(f"{path}:{line}", f"not {shape}, or broken JSON ({why})")

    with folder.reading(path), storage.open_binary(folder.found[path], read_ahead=READ_AHEAD) as file:
        stream = JsonStream(io.TextIOWrapper(file, "utf-8-sig"), fail)
        yield from walk(stream)
        stream.end()


def json_file(folder: Folder, role: str) -> Any:
    """A small JSON file as a whole; raises SettingsError where it is none."""
    path = folder.needed(role)
    with folder.reading(path):
        text = storage.read_bytes(folder.found[path]).decode("utf-8-sig")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise folder.wrong(path, f"broken JSON ({error})") from None
