"""Folders and globs: their sound files, the members of their tar archives, the rows of their Parquet files.

Columns of the user's own are in the JSON and texts beside the sounds in a tar (as WebDataset has them), and in Parquet
files with sounds. Which there are is found in the first such file, among the first files that are listed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.audio.signatures import AUDIO_EXTENSIONS
from mats_core.errors import SettingsError
from mats_core.storage.archives.tars import OTHER_ARCHIVES, TAR_ENDINGS, is_other_archive, is_tar, not_read
from pipelines.data import parquet
from pipelines.data.carried import MOST_CELL
from pipelines.data.inputs.entries import CHANNEL, Entry, Input, is_ours
from pipelines.data.inputs.rows import looked_up
from pipelines.data.inputs.sounds import SoundFile, sound_column
from pipelines.data.schemas import PLACE_COLUMNS, REQUEST_COLUMNS

TABLES = frozenset({".parquet"})
BESIDE = frozenset({".json", ".txt"})
"""Endings of what tells of a sound in a tar, under the same key."""
_LOOKED_AT = 1000  # files of a listing, and samples of a tar, in which columns are looked for
_MOST_COLUMNS = 100
_KEY = re.compile(r"(?s)((?:.*/)?[^/.]+)\.([^/]*)")


@dataclass
class _Kind:
    """What is known of the files of an INPUT: what its listing leaves out, and the columns of the user's own."""

    skipped: Counter[str]
    all_files: bool
    allowed: frozenset[str] | None = None
    columns: list[str] | None = None
    beside: dict[str, tuple[str, pa.DataType]] | None = None  # key in the JSON → name, type; None: nothing is beside
    tables: bool = False  # whether Parquet files with sounds are among them
    own: pa.Schema = field(default_factory=lambda: pa.schema([]))


def file_input(uri: str, allowed: frozenset[str] | None, columns: list[str] | None, all_files: bool) -> Input:
    """What a file, folder or glob holds. Raises SettingsError for what cannot be read.

    allowed: what the Parquet files with sounds may name, as `entries.may_name` says. columns: of the user's own.
    """
    kind = _Kind(Counter(), all_files, allowed, columns)
    endings = AUDIO_EXTENSIONS | TAR_ENDINGS | OTHER_ARCHIVES | TABLES
    listed = storage.list_files(uri, endings if storage.is_dir(uri) and not all_files else None, kind.skipped)
    first = list(islice(listed, _LOOKED_AT))
    requests = _find_columns(first, kind)
    if columns is not None and kind.beside is None and not requests:
        has_none = f"{storage.public_uri(uri)} is no list, and has no columns"
        raise SettingsError("columns", has_none, "leave it out")
    entries = _all_of(uri, chain(first, listed), kind)
    return Input("list" if requests else "files", entries, kind.own, requests, kind.skipped)


def unreadable(uri: str, error: storage.StorageError) -> SettingsError:
    """What to say of an INPUT that cannot be read."""
    problem = f"{storage.public_uri(uri)} cannot be read ({error})"
    return SettingsError("input", problem, "give a file, folder, list or URL that can")


def sounds_within(entry: Entry, skipped: Counter[str]) -> Iterator[Entry]:
    """The entry of a list itself, or the sounds in it where it is a tar archive."""
    yield from _within(entry, _Kind(skipped, False))


def _find_columns(first: list[storage.FileInfo], kind: _Kind) -> list[str]:
    """Fill in the columns that the first tar and the first Parquet file with sounds have; the latter, if any."""
    fields: list[pa.Field] = []
    tables: list[str] = []
    tar = next((each for each in first if is_tar(each.path)), None)
    if tar is not None:
        kind.beside, fields = _columns_beside(tar, kind.columns)
    found = None
    for info in first:
        with suppress(storage.StorageError):
            if (found := _sounds_in(info, kind)) is not None:
                break
    if found is not None:
        names = {each.name for each in fields}
        fields += [each for each in found.own if each.name not in names]
        tables.append(found.uri)
        kind.tables = True
    kind.own = pa.schema(fields)
    return tables


def _sounds_in(info: storage.FileInfo, kind: _Kind) -> SoundFile | None:
    """What is known of a file, where it is Parquet with sounds in it. Raises StorageError."""
    if not info.path.lower().endswith(tuple(TABLES)):
        return None
    schema = parquet.schema(info.uri)
    column = sound_column(schema, storage.public_uri(info.uri))
    return None if column is None else SoundFile(info.uri, schema, column, kind.columns)


def _all_of(uri: str, listed: Iterable[storage.FileInfo], kind: _Kind) -> Iterator[Entry]:
    try:
        for info in listed:
            if info.path.lower().endswith(tuple(TABLES)):
                found = yield from _table(info, kind)
                if found:
                    continue
                if not kind.all_files:
                    kind.skipped[".parquet"] += 1
                    continue
            yield from _within(Entry(info.uri, info.path, info.size, info.version), kind)
    except storage.StorageError as error:
        raise unreadable(uri, error) from None


def _table(info: storage.FileInfo, kind: _Kind) -> Generator[Entry, None, bool]:
    """The rows of a Parquet file with sounds, and whether it is one; what makes it unreadable becomes one entry with
    that error, after those before it."""
    try:
        found = _sounds_in(info, kind)
        if found is not None:
            yield from looked_up(found.entries(info, kind.allowed, kind.own.names))
        return found is not None
    except storage.StorageError as error:
        if not kind.tables and isinstance(error, parquet.NotParquet):
            return False  # one of something else
        yield Entry(info.uri, info.path, info.size, info.version, error=_told(error))
        return True


def _within(entry: Entry, kind: _Kind) -> Iterator[Entry]:
    """The entry itself, or the sounds in it where it is a tar archive; what makes that unreadable becomes one entry
    with that error, after those before it."""
    if entry.error is not None or not is_tar(entry.path):
        if entry.error is None and is_other_archive(entry.path):
            entry.error = _told(not_read())
        yield entry
        return
    archive = storage.FileInfo(entry.uri, entry.path, entry.size, entry.version)
    held: list[Entry] = []  # sounds with one key, and what is beside them
    told: dict[str, storage.FileInfo] = {}
    key = ""

    def together() -> Iterator[Entry]:
        lone = [] if held else list(told.values())
        if not kind.all_files:
            kind.skipped.update(f".{info.path.lower().rpartition('.')[2]}" for info in lone)
            lone = []
        yield from _with_columns(held or [_member(entry, archive, info) for info in lone], told, kind)

    beside = None if kind.beside is None else BESIDE
    wanted = None if kind.all_files else AUDIO_EXTENSIONS | (beside or frozenset())
    try:
        for info in storage.list_members(archive, wanted, kind.skipped, beside):
            found = _KEY.fullmatch(info.path)
            if (now := found[1] if found else info.path) != key:
                yield from together()
                held, told, key = [], {}, now
            if info.content is None:
                held.append(_member(entry, archive, info))
            else:
                told[found[2].lower() if found else ""] = info
        yield from together()
    except storage.StorageError as error:
        yield from together()
        yield replace(entry, error=_told(error), request=dict(entry.request))


def _member(entry: Entry, archive: storage.FileInfo, info: storage.FileInfo) -> Entry:
    member = replace(entry, uri=info.uri, path=info.path, size=info.size, version=info.version)
    member.request = dict(entry.request)
    name = info.path[len(archive.path) + 1 :]
    if name.startswith("/") or ".." in name.split("/"):
        member.error = ("refused", "is a member with a path that leads out of its archive")
    elif info.error is not None:
        member.error = _told(info.error)
    return member


def _told(error: storage.StorageError) -> tuple[str, str]:
    return error.code, error.message


# -- what stands beside the sounds in a tar ----------------------------------------------------------------------------


def _with_columns(entries: list[Entry], told: dict[str, storage.FileInfo], kind: _Kind) -> Iterator[Entry]:
    """The entries with what tells of them: the text, each value of the JSON in its column, and the rest of it."""
    if kind.beside is None:
        yield from entries
        return
    own: dict[str, Any] = dict.fromkeys(name for name in kind.own.names if name != CHANNEL)
    content = {end: info.content or b"" for end, info in told.items()}
    record, rest = _parsed(content.get("json"))
    left = dict(record)
    for key, (name, type_) in kind.beside.items():
        if key in record and (record[key] is None or _fitting(record[key], type_) is not None):
            own[name] = _fitting(left.pop(key), type_)
    if "txt" in own and "txt" in content:
        own["txt"] = content["txt"].decode("utf-8", "replace").strip()
    if "json" in own:
        own["json"] = rest if rest is not None else json.dumps(left, ensure_ascii=False) if left else None
    for entry in entries:
        entry.own = {**own, **entry.own}
        yield entry


def _parsed(content: bytes | None) -> tuple[dict[str, Any], str | None]:
    """A JSON object; or, where it is none, its text."""
    if content is None:
        return {}, None
    text = content.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return (found, None) if isinstance(found, dict) else ({}, text)


def _columns_beside(
    tar: storage.FileInfo, columns: list[str] | None
) -> tuple[dict[str, tuple[str, pa.DataType]] | None, list[pa.Field]]:
    """Key → name and type of the columns that the JSON beside the first sounds of a tar makes, None where nothing is
    beside them; and all columns: `json` holds what is in no other, `txt` the text."""
    kinds: dict[str, pa.DataType] = {}
    seen: set[str] = set()
    try:
        for info in islice(storage.list_members(tar, BESIDE, None, BESIDE), _LOOKED_AT):
            if info.content is None:
                continue
            seen.add(info.path.lower().rpartition(".")[2])
            record = _parsed(info.content)[0] if info.path.lower().endswith(".json") else {}
            for key, value in record.items():
                if key in kinds or len(kinds) < _MOST_COLUMNS:
                    kinds[key] = _common(kinds.get(key), value)
    except storage.StorageError:  # told where its members are taken
        pass
    taken = {*REQUEST_COLUMNS, *PLACE_COLUMNS, "json", "txt"}
    named = {key: f"own_{key}" if is_ours(key) or key in taken else key for key in kinds}
    found = {
        key: (name, kinds[key])
        for key, name in named.items()
        if (name == key or name not in kinds) and (columns is None or name in columns)
    }
    fields = [pa.field(*each) for each in found.values()]
    fields += [pa.field(name, pa.string()) for name in sorted(seen) if columns is None or name in columns]
    for name in columns or ():
        if seen and name not in {"uri", *seen, *named.values()}:
            problem = f"nothing beside the sounds in {storage.public_uri(tar.uri)} is called `{name}`"
            there = ", ".join([*named.values(), *sorted(seen)])
            raise SettingsError("columns", problem, f"choose some of {there} (only `uri`: none is carried along)")
    return (found if seen else None), fields


def _common(kind: pa.DataType | None, value: Any) -> pa.DataType:
    """The type of a column that has been `kind` so far and is to hold a value too."""
    if value is None:
        return kind or pa.null()
    here = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}.get(type(value), pa.string())
    if kind is None or pa.types.is_null(kind) or kind == here:
        return here
    return pa.float64() if {kind, here} == {pa.int64(), pa.float64()} else pa.string()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """A value of JSON as a column of this type holds it; None where it does not."""
    if value is None or pa.types.is_null(kind):
        return None
    if pa.types.is_string(kind):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text if len(text.encode("utf-8", "replace")) <= MOST_CELL else None
    if isinstance(value, bool) != pa.types.is_boolean(kind):
        return None
    if pa.types.is_floating(kind):
        return float(value) if isinstance(value, (int, float)) and abs(value) < 1e300 else None
    return value if type(value) in (bool, int) and abs(value) < 2**63 else None
