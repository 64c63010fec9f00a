"""Parquet files with the sounds in them: a column of records with `bytes` and `path`, as data sets on the Hub have it,
or a column `audio` of bytes. A row is an entry; where it has no bytes, what its path names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.archives.rows import bytes_of, version_of
from mats_core.storage.uris import row_uri
from pipelines.data import parquet
from pipelines.data.carried import large_cell
from pipelines.data.inputs.entries import CHANNEL, END, START, Entry, own_columns
from pipelines.data.inputs.rows import Naming, row_entry, rows_of
from pipelines.data.lists import too_large

USUAL = "audio"
_ROWS = 1024
_PATH = "__path"


def sound_column(schema: pa.Schema, shown: str) -> str | None:
    """The column that holds the sounds; None where none does. Raises SettingsError where several may be meant."""
    found = [each.name for each in schema if _holds_sound(each)]
    if USUAL in found or len(found) < 2:
        return USUAL if USUAL in found else (found or [None])[0]
    problem = f"{shown} has {len(found)} columns with sound, {', '.join(found)}"
    raise SettingsError("input", problem, f"call the one that is meant `{USUAL}`")


def _holds_sound(column: pa.Field) -> bool:
    kind = _plain(column.type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type) and _looks_like_sound(column)
    return column.name == USUAL and _is_bytes(kind)


def _looks_like_sound(column: pa.Field) -> bool:
    return "image" not in column.name.lower()  # note: pictures are stored in the same way


def _plain(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def _is_bytes(kind: pa.DataType) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


class SoundFile:
    """What is known of a Parquet file with sounds. Raises SettingsError for columns that cannot be carried along."""

    def __init__(self, uri: str, schema: pa.Schema, column: str, columns: list[str] | None) -> None:
        self.uri, self.column, self._schema = uri, column, schema
        shown = storage.public_uri(uri)
        self.own, self.named = own_columns(schema, shown, columns, (column, START, END), renamed=True)

    def entries(self, info: storage.FileInfo, allowed: frozenset[str] | None, own: list[str]) -> Iterator[Entry]:
        """An entry for each row of the file, which a listing calls `info`. allowed: what paths in it may name; own: the
        columns that are carried along. Raises StorageError."""
        named = {name: self.named.get(name, "") for name in own if name != CHANNEL}
        rest = [name for name in self._schema.names if name != self.column]
        folder = storage.public_uri(info.uri).rsplit("/", 1)[0]
        naming = Naming(uri=_PATH)
        row = 0
        with parquet.opened(info.uri, parquet.READ_AHEAD) as file:
            for group in range(file.metadata.num_row_groups):
                holds = self._holds_bytes(file, group)
                beside = self._beside(file, group, rest)
                for told, path in zip(beside, self._paths(file, group), strict=True):
                    name = (path or "").replace("\\", "/").rpartition("/")[2]
                    place = row_uri(info.uri, row, self.column, name)
                    inside = next(holds)
                    given = {**told, _PATH: place if inside else path}
                    entry = row_entry(given, folder, named, naming, None if inside else allowed)
                    if inside or not path:
                        entry.uri, entry.path = place, f"{info.path}#row={row}"
                        entry.version = version_of(info.version, row)
                    if not inside and not path:
                        entry.error = ("refused", f"is a row without sound: neither bytes nor path in `{self.column}`")
                    yield entry
                    row += 1

    def _beside(self, file: Any, group: int, names: list[str]) -> Iterator[dict[str, Any]]:
        """The other columns of a row group, row by row."""
        wanted = [name for name in names if name in self.named.values() or name in _ALWAYS]
        if not wanted:
            yield from ({} for _ in range(file.metadata.row_group(group).num_rows))
            return
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=wanted):
            if (found := large_cell(batch)) is not None:
                raise too_large(self.uri, f"row {found[0]} of row group {group} of", found[1], found[2])
            yield from rows_of(batch)

    def _paths(self, file: Any, group: int) -> Iterator[str | None]:
        kind = _plain(self._schema.field(self.column).type)
        if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
            yield from (None for _ in range(file.metadata.row_group(group).num_rows))
            return
        paths = [f"{self.column}.path"]
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=paths):
            column = batch.column(0)
            while isinstance(column, pa.ExtensionArray):
                column = column.storage
            yield from (None if each is None else str(each) for each in column.flatten()[0].to_pylist())

    def _holds_bytes(self, file: Any, group: int) -> Iterator[bool]:
        """Whether each row of a row group has bytes: mostly all do, as the file's own statistics say."""
        told = file.metadata.row_group(group)
        inside = [told.column(number) for number in range(told.num_columns)]
        own = [each for each in inside if each.path_in_schema in (self.column, f"{self.column}.bytes")]
        nulls = own[0].statistics.null_count if own and own[0].statistics is not None else None
        if nulls in (0, told.num_rows):
            yield from (nulls == 0 for _ in range(told.num_rows))
            return
        path = own[0].path_in_schema if own else self.column
        for batch in file.iter_batches(16, row_groups=[group], columns=[path]):
            yield from bytes_of(batch.column(0)).is_valid().to_pylist()


_ALWAYS = ("task", "question", "tag", START, END, CHANNEL)
