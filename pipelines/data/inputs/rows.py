"""Lists: a row is a sound, or a stretch of one."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.uris import windows_path
from pipelines.data.carried import plain_values
from pipelines.data.inputs.entries import CHANNEL, END, START, Entry, Input, own_columns, refusal, request_of
from pipelines.data.lists import read_table, without_large_cells
from pipelines.data.schemas import REQUEST_COLUMNS
from pipelines.settings.base import anchored

ERROR = "__error"
"""Column of a row that names no sound, with (code, message)."""
_AT_ONCE = 256  # entries of a list that are looked up together
_LOOKUPS = 16  # of these at the same moment, since a store answers slowly, but many at once
Row = dict[str, Any]
Within = Callable[[Entry, Counter[str]], Iterator[Entry]]
"""The sounds of an entry that may be an archive."""


@dataclass(frozen=True)
class Naming:
    """What the columns of a kind of list are called: the sound, where its stretch begins, and where that ends or how
    long it is. foreign: others made it, so that its columns may have names of ours."""

    uri: str = "uri"
    start: str = START
    end: str = END
    length: str = ""
    foreign: bool = False

    @property
    def places(self) -> tuple[str, ...]:
        """The columns that say where a sound is."""
        return tuple(name for name in (self.uri, self.start, self.end, self.length) if name)

    def stretch(self, row: Row) -> tuple[Any, Any]:
        """Where a row's stretch begins and ends, as the row has it."""
        start = row.get(self.start)
        if not self.length:
            return start, row.get(self.end)
        try:
            length = row.get(self.length)
            return start, None if length is None else round(float(start or 0.0) + float(length), 6)
        except (TypeError, ValueError):
            return start, f"{row.get(self.length)!r} after it"


NEMO = Naming("audio_filepath", "offset", "", "duration", foreign=True)


def list_input(uri: str, allowed: frozenset[str] | None, columns: list[str] | None, within: Within) -> Input:
    """The rows of a Parquet, CSV or JSONL list; raises SettingsError for one that cannot be read.

    allowed: what it may name, as `entries.may_name` says. within: the sounds of what is an archive.
    """
    schema, _ = read_table(uri)
    shown = f"the list {storage.public_uri(uri)}"
    naming = Naming() if "uri" in schema.names or NEMO.uri not in schema.names else NEMO
    if naming.uri not in schema.names:
        problem = f"{shown} has no column `uri`, but {', '.join(schema.names) or 'none at all'}"
        raise SettingsError("input", problem, "name the column of paths or URLs `uri`")
    for name in schema.names:
        if name.startswith("__index_level_"):
            remedy = "write it with to_parquet(…, index=False)"
            raise SettingsError("input", f"{shown} has pandas' own column `{name}`", remedy)
    own, named = own_columns(schema, shown, columns, naming.places, naming.foreign)
    kind = schema.field(naming.uri).type
    if not _is_text(kind):
        problem = f"the column `{naming.uri}` of {shown} is {kind}"
        raise SettingsError("input", problem, "give paths or URLs, as strings")
    skipped: Counter[str] = Counter()
    _, batches = read_table(uri, only=(*naming.places, CHANNEL, *REQUEST_COLUMNS, *named.values()))
    rows = (row for batch in without_large_cells(uri, batches, naming.uri) for row in rows_of(batch))
    return Input("list", entries_of(uri, rows, named, naming, allowed, skipped, within), own, [uri], skipped)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view", "null")


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch, as plain values."""
    columns = [plain_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def entries_of(
    list_uri: str,
    rows: Iterator[Row],
    named: dict[str, str],
    naming: Naming,
    allowed: frozenset[str] | None,
    skipped: Counter[str],
    within: Within,
) -> Iterator[Entry]:
    """The entry of each row of a list, looked up. named: the row's own columns, as `entries.own_columns` has them."""
    folder = storage.public_uri(anchored(list_uri)).rsplit("/", 1)[0]  # what is not done now may be from elsewhere
    rows = _not_all_blank(list_uri, rows, naming.uri)
    for entry in looked_up(row_entry(row, folder, named, naming, allowed) for row in rows):
        yield from within(entry, skipped)


def looked_up(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries with size and version, or with their error, in order."""
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        while some := list(islice(entries, _AT_ONCE)):
            yield from pool.map(_looked_up, some)


def _not_all_blank(list_uri: str, rows: Iterator[Row], column: str) -> Iterator[Row]:
    """The rows; raises SettingsError, before the first one, for a list in which every `uri` is blank."""
    blank: list[Row] = []
    for row in rows:
        if not _is_blank(row[column]) or ERROR in row:
            yield from chain(blank, [row], rows)
            return
        blank.append(row)
    if blank:
        problem = f"every `{column}` of the list {storage.public_uri(list_uri)} is blank"
        raise SettingsError("input", problem, f"give a list with a path or URL in its column `{column}`")


def _is_blank(given: Any) -> bool:
    return given is None or not str(given).strip()


def row_entry(row: Row, folder: str, named: dict[str, str], naming: Naming, allowed: frozenset[str] | None) -> Entry:
    """The entry that a row of a list in `folder` names, not looked up yet; with its error where it may not."""
    given = "" if row[naming.uri] is None else str(row[naming.uri])
    own = {name: row.get(column) for name, column in named.items()}
    entry = Entry(given, storage.public_uri(given), request=request_of(row), own=own)
    if ERROR in row:
        entry.error = row[ERROR]
        return entry
    if _is_blank(given):
        entry.error = ("refused", f"is a row without `{naming.uri}`")
        return entry
    entry.take_stretch(*naming.stretch(row))
    if CHANNEL in row:
        _take_channel(entry, row[CHANNEL])
    if entry.error is None:
        entry.error = _place(entry, given, folder, allowed)
    return entry


def _take_channel(entry: Entry, given: Any) -> None:
    try:
        channel = None if _is_blank(given) else float(given)
        if channel is not None and not (channel >= 0 and channel == int(channel)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        entry.error = ("refused", f"names the channel {given!r}, and they are 0, 1, …"[:300])
        channel = None
    entry.own[CHANNEL] = None if channel is None else int(channel)


def _place(entry: Entry, given: str, folder: str, allowed: frozenset[str] | None) -> tuple[str, str] | None:
    """Fill in where the sound that a list in `folder` calls `given` is; the error where it may not be named."""
    if (windows := windows_path(given)) is not None:
        remedy = "write it as this machine calls it, or relative to the list"
        return "refused", f"is a path of Windows, {windows}, which this machine does not know; {remedy}"
    try:
        if is_relative(given):
            entry.uri = storage.join(folder, given)
        reason = refusal(entry.uri, allowed)
    except storage.StorageError as error:
        reason = error.message
    return None if reason is None else ("refused", reason)


def is_relative(given: str) -> bool:
    """Whether a path is one in the folder of its list."""
    return "://" not in given and not posixpath.isabs(given)


def _looked_up(entry: Entry) -> Entry:
    """The entry with size and version, or with its error. A relative path with the backslashes of Windows is looked for
    with slashes as well."""
    if entry.error is not None or entry.version:
        return entry
    try:
        info = storage.stat(entry.uri)
    except storage.StorageError as error:
        entry.error = (error.code, error.message)
        if error.code != "not_found" or not is_relative(entry.path):
            return entry
        folder = entry.uri.removesuffix(entry.path).rstrip("/")
        entry.error = (error.code, f"{error.message}; a relative path is looked for in the list's folder, {folder}")
        if "\\" not in entry.path:
            return entry
        try:
            other = storage.join(folder, entry.path.replace("\\", "/"))
            info = storage.stat(other)
        except storage.StorageError as second:
            if second.code == "refused":
                entry.error = ("refused", 'has a step ".." in its path, which is not followed')
            return entry
        entry.uri, entry.error = other, None
    entry.size, entry.version = info.size, info.version
    return entry
