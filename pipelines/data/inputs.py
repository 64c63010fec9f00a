"""What INPUT names: a stream of entries, whatever it is.

An entry is one file of a folder or one row of a list. Its `path` is what identifies it (relative to
the folder, or as the list writes it), its `uri` is where it is read.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from mats_core import storage
from mats_core.errors import first_line, got_allowed
from mats_core.storage.tar import TAR_ENDINGS, is_tar
from mats_core.storage.uris import is_file_url, redacted, split_member, wrong_url
from pipelines.data import embeddings, parquet
from pipelines.data.schemas import MANIFEST_SCHEMA, NESTED, REQUEST_COLUMNS, RESERVED
from pipelines.settings.archive import anchored

LIST_ENDINGS = (".parquet", ".csv", ".jsonl")
OTHER_LISTS = (".tsv", ".ndjson", ".json", ".txt", ".xls", ".xlsx")
_ENDINGS = ", ".join(LIST_ENDINGS)
_AT_ONCE = 256  # entries of a list that are looked up together
_LOOKUPS = 16  # of these at the same moment, since a store answers slowly, but many at once
_SMALL_LIST = 64 << 20  # bytes; read whole, so that a column's type is found from all rows
_LIST_AHEAD = 4 << 20
MANIFEST_SIDECAR = "_manifest.json"


@dataclass
class Entry:
    """One thing asked about. `chunk` holds the manifest columns when they are already known."""

    uri: str
    path: str
    size: int = 0
    version: str = ""
    request: dict[str, str | None] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    chunk: dict[str, Any] | None = None


@dataclass
class Source:
    """`kind` is files, list, manifest or embeddings; `own_schema` the user's columns, carried along.

    `tables` are the files that a list, manifest or folder of embeddings consists of.
    """

    kind: str
    entries: Iterator[Entry]
    own_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    tables: list[str] = field(default_factory=list)

    def requests(self) -> Iterator[Entry]:
        """Every request that rows make, without their sounds; raises SettingsError for a table that cannot be read."""
        for uri in self.tables:
            schema, batches = _read_table(uri)
            names = [name for name in REQUEST_COLUMNS if name in schema.names]
            if uri.endswith(".parquet"):  # no need to read the embeddings
                _, batches = _read_table(uri, names)
            for batch in batches:
                named = batch.select(names)
                asked = [_request(row) for row in named.to_pylist()]
                for some in {tuple(request.items()) for request in asked}:
                    yield Entry("", "", request=dict(some))


def open_source(uri: str, schemes: list[str] | None = None) -> Source:
    """The entries of `uri`; raises SettingsError when it is nothing that can be read.

    `schemes`: kinds of storage that the rows of a list or manifest may name ("file", "s3", …). By default any
    for a list on a local disk, and its own kind for one that lies elsewhere.
    """
    if not uri.strip():
        raise got_allowed("input", uri, "a path or URL (. is the folder you are in)")
    may_name = _may_name(uri, schemes)
    try:
        if storage.is_dir(uri):
            if embeddings.has_facts(uri):
                return _table_source(storage.join(uri, embeddings.FOLDER), "embeddings", may_name)
            if storage.exists(storage.join(uri, MANIFEST_SIDECAR)):
                return _table_source(storage.join(uri, "manifest"), "manifest", may_name)
            return Source("files", _file_entries(uri))
        if _is_list(uri):
            if not storage.exists(uri):
                raise got_allowed("input", storage.public_uri(uri), "a list that exists")
            return _list_source(uri, may_name)
        if storage.public_uri(uri).lower().endswith(OTHER_LISTS):
            raise got_allowed("input", storage.public_uri(uri), f"sound, or a list that ends in {_ENDINGS}")
    except storage.StorageError as error:
        raise got_allowed("input", storage.public_uri(uri), f"something readable ({error})") from None
    return Source("files", _file_entries(uri))


def _is_list(uri: str) -> bool:
    return storage.public_uri(uri).lower().endswith(LIST_ENDINGS)


def _may_name(uri: str, schemes: list[str] | None) -> frozenset[str] | None:
    """Kinds of storage that rows may name; None for any. Raises SettingsError for a kind that is none."""
    if schemes is not None:
        for name in schemes:
            if not storage.is_known_scheme(name):
                raise got_allowed("schemes", name, "file, s3, gs, az, http, https, or another kind that fsspec knows")
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


def _file_entries(uri: str) -> Iterator[Entry]:
    from mats_core.audio.signatures import AUDIO_EXTENSIONS

    extensions = AUDIO_EXTENSIONS | TAR_ENDINGS if storage.is_dir(uri) else None
    try:
        for info in storage.list_files(uri, extensions):
            yield from _members(info) if is_tar(info.path) else [Entry(info.uri, info.path, info.size, info.version)]
    except storage.StorageError as error:
        raise got_allowed("input", storage.public_uri(uri), f"something readable ({error})") from None


def _members(archive: storage.FileInfo, request: dict[str, str | None] | None = None) -> Iterator[Entry]:
    """The sounds in a tar archive; what makes it unreadable becomes one entry with that error, after those
    before it."""
    from mats_core.audio.signatures import AUDIO_EXTENSIONS

    try:
        for member in storage.list_members(archive, AUDIO_EXTENSIONS):
            entry = Entry(member.uri, member.path, member.size, member.version, dict(request or {}))
            name = member.path[len(archive.path) + 1 :]
            if name.startswith("/") or ".." in name.split("/"):
                entry.error = ("refused", "is a member with a path that leads out of its archive")
            yield entry
    except storage.StorageError as error:
        failed = (error.code, error.message)
        yield Entry(archive.uri, archive.path, archive.size, archive.version, dict(request or {}), error=failed)


def _list_source(uri: str, may_name: frozenset[str] | None) -> Source:
    schema, batches = _read_table(uri)
    if "uri" not in schema.names:
        raise got_allowed("input", f"columns {', '.join(schema.names)}", "a list with a column `uri`")
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise got_allowed("input", f"a list with {times} columns named `{name}`", "a name of its own for each")
        if name.startswith("__index_level_"):
            raise got_allowed("input", f"a list with pandas' column `{name}`", "to_parquet(…, index=False)")
        if name in RESERVED or name.startswith("_"):
            raise got_allowed("input", f"a list with a column `{name}`", "names that are not this program's")
    kind = schema.field("uri").type
    if not _is_text(kind):
        raise got_allowed("input", f"a list whose `uri` is {kind}", "paths or URLs, as strings")
    own = pa.schema([f for f in schema if f.name != "uri" and f.name not in REQUEST_COLUMNS])
    return Source("list", _list_entries(uri, batches, own.names, may_name), own, [uri])


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view", "null")


def _list_entries(
    list_uri: str, batches: Iterator[pa.RecordBatch], own: list[str], may_name: frozenset[str] | None
) -> Iterator[Entry]:
    folder = storage.public_uri(anchored(list_uri)).rsplit("/", 1)[0]  # what is not done now may be from elsewhere
    rows = _not_all_blank(list_uri, (row for batch in batches for row in batch.to_pylist()))
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        while some := [_list_entry(row, folder, own, may_name) for row in islice(rows, _AT_ONCE)]:
            for entry in pool.map(_looked_up, some):
                if entry.error is None and is_tar(entry.path):
                    info = storage.FileInfo(entry.uri, entry.path, entry.size, entry.version)
                    for member in _members(info, entry.request):
                        member.own = entry.own
                        yield member
                else:
                    yield entry


def _not_all_blank(list_uri: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; raises SettingsError, before the first one, for a list in which every `uri` is blank."""
    blank: list[dict[str, Any]] = []
    for row in rows:
        blank.append(row)
        if not _is_blank(row["uri"]):
            break
    if blank and _is_blank(blank[-1]["uri"]):
        raise got_allowed("input", storage.public_uri(list_uri), "a list with a path or URL in its column `uri`")
    yield from blank
    yield from rows


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
    if "://" not in given and not posixpath.isabs(given):
        try:
            entry.uri = storage.join(folder, given)
        except storage.StorageError as error:
            entry.error = ("refused", error.message)
            return entry
    reason = refusal(entry.uri, may_name)
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


def _table_source(folder: str, kind: str, may_name: frozenset[str] | None) -> Source:
    """Rows of our own data sets (`mats scan`, `mats embed-audio`): manifest columns are taken as they are."""
    parts = [info.uri for info in parquet.files(folder)]
    if not parts:
        raise got_allowed("input", storage.public_uri(folder), f"a data set of {kind} with rows in it")
    schema, _ = _read_table(parts[0])
    ours = {"uri", *RESERVED, *REQUEST_COLUMNS}
    own = pa.schema([f for f in schema if f.name not in ours])
    return Source(kind, _table_entries(parts, own.names, may_name), own, parts if kind == "embeddings" else [])


def _table_entries(parts: list[str], own: list[str], may_name: frozenset[str] | None) -> Iterator[Entry]:
    for part in parts:
        schema, _ = _read_table(part)
        wanted = [name for name in schema.names if name not in NESTED]
        _, batches = _read_table(part, wanted)
        position = 0
        for batch in batches:
            for row in batch.to_pylist():
                chunk = {name: row.get(name) for name in MANIFEST_SCHEMA.names}
                chunk["part"], chunk["part_row"] = part.rsplit("/", 1)[-1], position
                chunk["last"] = bool(row.get("last", False))
                position += 1
                chunk["uri"] = storage.public_uri(row["uri"])
                reason = refusal(row["uri"], may_name)
                if reason is not None and chunk["error_code"] is None:
                    chunk.update(error_code="refused", error_message=reason)
                request = {name: row.get(name) for name in REQUEST_COLUMNS}
                yield Entry(
                    row["uri"],
                    row["chunk_id"],
                    row["size_bytes"] or 0,
                    row["version"] or "",
                    request,
                    {name: row[name] for name in own},
                    chunk=chunk,
                )


def _read_table(uri: str, columns: list[str] | None = None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and row batches of a Parquet, CSV or JSONL file; raises SettingsError when it is not one."""
    name = storage.public_uri(uri).lower()
    with _readable(uri):
        if name.endswith(".parquet"):
            return parquet.schema(uri), _batches(uri, parquet.batches(uri, 4096, columns))
        file = storage.open_binary(uri, read_ahead=_LIST_AHEAD)
        small = file.seek(0, io.SEEK_END) <= _SMALL_LIST
        file.seek(0)
        if name.endswith(".csv"):
            from pyarrow import csv

            read: Any = csv.read_csv if small else csv.open_csv
            lines = csv.ParseOptions(newlines_in_values=True)
            header = csv.open_csv(file, parse_options=lines).schema.names
            file.seek(0)
            # note: CSV has no types. What is guessed would change what is carried along: 007 into 7
            text = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
            reader: Any = read(file, parse_options=lines, convert_options=text)
        else:
            from pyarrow import json as arrow_json

            streamed = getattr(arrow_json, "open_json", None)  # note: pyarrow before 20 has none
            read = arrow_json.read_json if small or streamed is None else streamed
            reader = read(file)
            plain = pa.schema([(each.name, _without_times(each.type)) for each in reader.schema])
            if plain != reader.schema:  # JSON has no times: these are strings that look like one
                file.seek(0)
                reader = read(file, parse_options=arrow_json.ParseOptions(explicit_schema=plain))
        batches = reader.to_batches(max_chunksize=4096) if isinstance(reader, pa.Table) else reader
        return reader.schema, _batches(uri, iter(batches))


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
    try:
        yield
    except (pa.ArrowInvalid, parquet.NotParquet) as error:
        first = redacted(first_line(error))
        raise got_allowed("input", storage.public_uri(uri), f"a readable list ({first})") from None
    except UnicodeDecodeError as error:
        raise got_allowed("input", storage.public_uri(uri), f"a list in UTF-8 ({error})") from None
    except OSError as error:
        shown = storage.error_from(error, uri)
        raise got_allowed("input", storage.public_uri(uri), f"something readable ({shown})") from None


def entry_key(entry: Entry, defaults: dict[str, str | None], occurrence: int) -> bytes:
    """What makes an entry the same one when INPUT is scanned again (canonical JSON)."""
    request = [entry.request.get(name) or defaults.get(name) for name in REQUEST_COLUMNS]
    return json.dumps([entry.path, entry.version, request, entry.own, occurrence], sort_keys=True, default=str).encode()
