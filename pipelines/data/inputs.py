"""What INPUT names: a stream of entries, whatever it is.

An entry is one file of a folder or one row of a list (Parquet, CSV or JSONL). Its `path` is what identifies it (in the
folder, or as the list writes it), its `uri` is where it is read.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.tars import OTHER_ARCHIVES, TAR_ENDINGS, is_other_archive, is_tar, not_read
from mats_core.storage.uris import Uri, is_file_url, split_member, uri_text, wrong_url
from pipelines.data import embeddings, generations
from pipelines.data.carried import carried_schema, plain_values
from pipelines.data.lists import LIST_ENDINGS, read_table, without_large_cells
from pipelines.data.schemas import MANIFEST_SCHEMA, NESTED, REQUEST_COLUMNS, RESERVED
from pipelines.settings.base import anchored

OTHER_LISTS = (".tsv", ".ndjson", ".json", ".txt", ".xls", ".xlsx")
MANIFEST_SIDECAR = "_manifest.json"
_AT_ONCE = 256  # entries of a list that are looked up together
_LOOKUPS = 16  # of these at the same moment, since a store answers slowly, but many at once


@dataclass
class Entry:
    """One thing asked about. `chunk` holds the manifest columns when they are already known; the work list gives it its
    `entry_id`."""

    uri: str
    path: str
    size: int = 0
    version: str = ""
    request: dict[str, str | None] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    chunk: dict[str, Any] | None = None
    entry_id: int = 0


@dataclass
class Input:
    """`kind` is files, list, manifest or embeddings; `own_schema` the user's columns, carried along.

    `tables` are the files that a list, manifest or folder of embeddings consists of; `skipped` counts, while entries
    are taken, the files that are left out for their ending.
    """

    kind: str
    entries: Iterator[Entry]
    own_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    tables: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def requests(self) -> Iterator[Entry]:
        """Every request that rows make, without their sounds; raises SettingsError for a table that cannot be read."""
        for uri in self.tables:
            _, batches = read_table(uri, only=REQUEST_COLUMNS)
            for batch in batches:
                for some in {tuple(_request(row).items()) for row in batch.to_pylist()}:
                    yield Entry("", "", request=dict(some))


def open_input(
    uri: Uri, schemes: list[str] | None = None, columns: list[str] | None = None, all_files: bool = False
) -> Input:
    """The entries of `uri`; raises SettingsError when it is nothing that can be read.

    `schemes`: kinds of storage that the rows of a list or manifest may name ("file", "s3", …). By default any
    for a list on a local disk, and its own kind for one that lies elsewhere. `columns`: those of a list's own that
    are carried along; by default all. `all_files`: of a folder, whatever its files' names end in.
    """
    uri = uri_text(uri)
    if not uri.strip():
        raise SettingsError("input", "nothing is named", "give a path or URL (. is the folder you are in)")
    may_name = _may_name(uri, schemes)
    shown = storage.public_uri(uri)
    try:
        if storage.is_dir(uri):
            if embeddings.has_facts(uri):
                return _table_input(storage.join(uri, embeddings.FOLDER), "embeddings", may_name, columns)
            if storage.exists(storage.join(uri, MANIFEST_SIDECAR)):
                return _table_input(storage.join(uri, "manifest"), "manifest", may_name, columns)
        elif shown.lower().endswith(LIST_ENDINGS):
            if not storage.exists(uri):
                raise SettingsError("input", f"there is no list {shown}", "give a list that exists")
            return _list_input(uri, may_name, columns)
        elif shown.lower().endswith(OTHER_LISTS):
            endings = ", ".join(LIST_ENDINGS)
            raise SettingsError("input", f"{shown} is no sound", f"give sound, or a list that ends in {endings}")
    except storage.StorageError as error:
        raise _unreadable(uri, error) from None
    if columns is not None:
        raise SettingsError("columns", f"{shown} is no list, and has no columns", "leave it out")
    skipped: Counter[str] = Counter()
    return Input("files", _file_entries(uri, skipped, all_files), skipped=skipped)


def _unreadable(uri: str, error: storage.StorageError) -> SettingsError:
    problem = f"{storage.public_uri(uri)} cannot be read ({error})"
    return SettingsError("input", problem, "give a file, folder, list or URL that can")


def _may_name(uri: str, schemes: list[str] | None) -> frozenset[str] | None:
    """Kinds of storage that rows may name; None for any. Raises SettingsError for a kind that is none."""
    if schemes is not None:
        for name in schemes:
            if not storage.is_known_scheme(name):
                remedy = "name file, s3, gs, az, http, https, or another kind that fsspec knows"
                raise SettingsError("schemes", f'"{name}" is no kind of storage', remedy)
        return frozenset(schemes)
    kind = storage.scheme(uri)
    return frozenset({kind}) if kind else None


def refusal(uri: str, may_name: frozenset[str] | None) -> str | None:
    """Why a row may not name `uri` (code refused), or None where it may."""
    while uri.startswith("tar+"):
        try:
            uri = split_member(uri)[0]
        except storage.StorageError as error:
            return error.message
    reason = wrong_url(uri)
    if reason is not None:
        return reason
    kind = storage.scheme(uri)
    shown = kind or "file"
    if may_name is not None and shown not in may_name:
        allowed = ", ".join(sorted(may_name)) or "nothing"
        what = "a local file" if shown == "file" else f"{shown}://"
        return f"names {what}; this list may name {allowed} (--schemes)"
    # note: in an object store ".." is a name like any other, and there is nothing it would lead to
    path = unquote(uri) if kind in ("http", "https") or is_file_url(uri) else uri
    if kind in ("", "http", "https", "ftp", "sftp", "ssh", "smb") and ".." in path.partition("?")[0].split("/"):
        return 'has a step ".." in its path, which is not followed'
    if "\0" in path:
        return "has a zero byte in its name"
    return None


def _file_entries(uri: str, skipped: Counter[str], all_files: bool) -> Iterator[Entry]:
    from mats_core.audio.signatures import AUDIO_EXTENSIONS

    extensions = AUDIO_EXTENSIONS | TAR_ENDINGS | OTHER_ARCHIVES if storage.is_dir(uri) and not all_files else None
    try:
        for info in storage.list_files(uri, extensions, skipped):
            yield from _sounds(Entry(info.uri, info.path, info.size, info.version), skipped, all_files)
    except storage.StorageError as error:
        raise _unreadable(uri, error) from None


def _sounds(entry: Entry, skipped: Counter[str], all_files: bool = False) -> Iterator[Entry]:
    """The entry itself, or the sounds in it where it is a tar archive; what makes that unreadable becomes one entry
    with that error, after those before it."""
    from mats_core.audio.signatures import AUDIO_EXTENSIONS

    if entry.error is not None or not is_tar(entry.path):
        if entry.error is None and is_other_archive(entry.path):
            entry.error = _told(not_read())
        yield entry
        return
    archive = storage.FileInfo(entry.uri, entry.path, entry.size, entry.version)
    try:
        for info in storage.list_members(archive, None if all_files else AUDIO_EXTENSIONS, skipped):
            member = replace(entry, uri=info.uri, path=info.path, size=info.size, version=info.version)
            member.request = dict(entry.request)
            name = info.path[len(archive.path) + 1 :]
            if name.startswith("/") or ".." in name.split("/"):
                member.error = ("refused", "is a member with a path that leads out of its archive")
            elif info.error is not None:
                member.error = _told(info.error)
            yield member
    except storage.StorageError as error:
        yield replace(entry, error=_told(error), request=dict(entry.request))


def _told(error: storage.StorageError) -> tuple[str, str]:
    return error.code, error.message


def _list_input(uri: str, may_name: frozenset[str] | None, columns: list[str] | None) -> Input:
    schema, _ = read_table(uri)
    shown = f"the list {storage.public_uri(uri)}"
    if "uri" not in schema.names:
        problem = f"{shown} has no column `uri`, but {', '.join(schema.names) or 'none at all'}"
        raise SettingsError("input", problem, "name the column of paths or URLs `uri`")
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise SettingsError("input", f"{shown} has {times} columns `{name}`", "give each a name of its own")
    kind = schema.field("uri").type
    if not _is_text(kind):
        raise SettingsError("input", f"the column `uri` of {shown} is {kind}", "give paths or URLs, as strings")
    own = _own(schema, shown, columns)
    for name in own.names:
        if name.startswith("__index_level_"):
            remedy = "write it with to_parquet(…, index=False)"
            raise SettingsError("input", f"{shown} has pandas' own column `{name}`", remedy)
        if name in RESERVED or name.startswith("_"):
            problem = f"{shown} has a column `{name}`, a name that this program needs itself"
            raise SettingsError("input", problem, "rename the column")
    skipped: Counter[str] = Counter()
    _, batches = read_table(uri, only=("uri", *REQUEST_COLUMNS, *own.names))
    entries = _list_entries(uri, without_large_cells(uri, batches), own.names, may_name, skipped)
    return Input("list", entries, own, [uri], skipped)


def _own(schema: pa.Schema, shown: str, columns: list[str] | None) -> pa.Schema:
    """The columns of a table that are the user's own, those of `columns` where it is given, as they are carried along.

    Raises SettingsError for a name that is none of its columns, and for a column that cannot be carried along.
    """
    for name in columns or ():
        if name not in schema.names:
            problem = f"{shown} has no column `{name}`, but {', '.join(schema.names) or 'none at all'}"
            raise SettingsError("columns", problem, "choose some of these (only `uri`: none is carried along)")
    ours = {"uri", *REQUEST_COLUMNS}
    return carried_schema(
        pa.schema([f for f in schema if f.name not in ours and (columns is None or f.name in columns)]), shown
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view", "null")


def _list_entries(
    list_uri: str,
    batches: Iterator[pa.RecordBatch],
    own: list[str],
    may_name: frozenset[str] | None,
    skipped: Counter[str],
) -> Iterator[Entry]:
    folder = storage.public_uri(anchored(list_uri)).rsplit("/", 1)[0]  # what is not done now may be from elsewhere
    rows = _not_all_blank(list_uri, (row for batch in batches for row in _rows(batch)))
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        while some := [_list_entry(row, folder, own, may_name) for row in islice(rows, _AT_ONCE)]:
            for entry in pool.map(_looked_up, some):
                yield from _sounds(entry, skipped)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [plain_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _not_all_blank(list_uri: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; raises SettingsError, before the first one, for a list in which every `uri` is blank."""
    blank: list[dict[str, Any]] = []
    for row in rows:
        if not _is_blank(row["uri"]):
            yield from chain(blank, [row], rows)
            return
        blank.append(row)
    if blank:
        problem = f"every `uri` of the list {storage.public_uri(list_uri)} is blank"
        raise SettingsError("input", problem, "give a list with a path or URL in its column `uri`")


def _is_blank(given: Any) -> bool:
    return given is None or not str(given).strip()


def _request(row: dict[str, Any]) -> dict[str, str | None]:
    """What a row asks for; an empty cell of a CSV means "not said"."""
    return {name: (str(row[name]) if row.get(name) else None) for name in REQUEST_COLUMNS}


def _list_entry(row: dict[str, Any], folder: str, own: list[str], may_name: frozenset[str] | None) -> Entry:
    given = "" if row["uri"] is None else str(row["uri"])
    entry = Entry(given, storage.public_uri(given), request=_request(row), own={name: row[name] for name in own})
    if _is_blank(given):
        entry.error = ("refused", "is a row without `uri`")
        return entry
    try:
        if "://" not in given and not posixpath.isabs(given):
            entry.uri = storage.join(folder, given)
        reason = refusal(entry.uri, may_name)
    except storage.StorageError as error:
        reason = error.message
    if reason is not None:
        entry.error = ("refused", reason)
    return entry


def _looked_up(entry: Entry) -> Entry:
    """The entry with size and version, or with its error."""
    if entry.error is None:
        try:
            info = storage.stat(entry.uri)
            entry.size, entry.version = info.size, info.version
        except storage.StorageError as error:
            entry.error = (error.code, error.message)
    return entry


def _table_input(folder: str, kind: str, may_name: frozenset[str] | None, columns: list[str] | None) -> Input:
    """Rows of our own data sets (`mats scan`, `mats embed-audio`): manifest columns are taken as they are."""
    parts = [info.uri for info in generations.files(folder)]
    if not parts:
        problem = f"{storage.public_uri(folder)} has no rows"
        raise SettingsError("input", problem, f"give {'a manifest' if kind == 'manifest' else kind} with rows in it")
    schema, _ = read_table(parts[0])
    own = _own(pa.schema([f for f in schema if f.name not in RESERVED]), storage.public_uri(folder), columns)
    return Input(kind, _table_entries(parts, own.names, may_name), own, parts if kind == "embeddings" else [])


def _table_entries(parts: list[str], own: list[str], may_name: frozenset[str] | None) -> Iterator[Entry]:
    for part in parts:
        _, batches = read_table(part, without=NESTED)
        for at, row in enumerate(row for batch in batches for row in _rows(batch)):
            chunk = {name: row.get(name) for name in MANIFEST_SCHEMA.names}
            chunk["part"], chunk["part_row"] = part.rsplit("/", 1)[-1], at
            chunk["last"] = bool(row.get("last", False))
            chunk["uri"] = storage.public_uri(row["uri"])
            reason = refusal(row["uri"], may_name)
            if reason is not None and chunk["error_code"] is None:
                chunk.update(error_code="refused", error_message=reason)
            request = {name: row.get(name) for name in REQUEST_COLUMNS}
            carried = {name: row[name] for name in own}
            size, version = row["size_bytes"] or 0, row["version"] or ""
            yield Entry(row["uri"], row["chunk_id"], size, version, request, carried, chunk=chunk)


def entry_key(entry: Entry, defaults: dict[str, str | None], occurrence: int) -> bytes:
    """What makes an entry the same one when INPUT is scanned again (canonical JSON)."""
    request = [entry.request.get(name) or defaults.get(name) for name in REQUEST_COLUMNS]
    return json.dumps([entry.path, entry.version, request, entry.own, occurrence], sort_keys=True, default=str).encode()
