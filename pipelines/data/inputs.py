"""What INPUT names: a stream of entries, whatever it is.

An entry is one file of a folder or one row of a list (Parquet, CSV or JSONL). Its `path` is what identifies it (in the
folder, or as the list writes it), its `uri` is where it is read.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, BinaryIO
from urllib.parse import unquote

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.storage.listing import TAR_ENDINGS, is_tar
from mats_core.storage.uris import is_file_url, redacted, split_member, wrong_url
from pipelines.data import embeddings, generations, parquet
from pipelines.data.schemas import MANIFEST_SCHEMA, NESTED, REQUEST_COLUMNS, RESERVED, map_type
from pipelines.settings.base import anchored

LIST_ENDINGS = (".parquet", ".csv", ".jsonl")
OTHER_LISTS = (".tsv", ".ndjson", ".json", ".txt", ".xls", ".xlsx")
MANIFEST_SIDECAR = "_manifest.json"
_AT_ONCE = 256  # entries of a list that are looked up together
_LOOKUPS = 16  # of these at the same moment, since a store answers slowly, but many at once
_BATCH = 4096  # rows
_SMALL = 64 << 20  # bytes; read whole, so that a column's type is found from all rows
_READ_AHEAD = 4 << 20


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

    `tables` are the files that a list, manifest or folder of embeddings consists of.
    """

    kind: str
    entries: Iterator[Entry]
    own_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    tables: list[str] = field(default_factory=list)

    def requests(self) -> Iterator[Entry]:
        """Every request that rows make, without their sounds; raises SettingsError for a table that cannot be read."""
        for uri in self.tables:
            schema, batches = read_table(uri, without=NESTED)
            names = [name for name in REQUEST_COLUMNS if name in schema.names]
            for batch in batches:
                for some in {tuple(_request(row).items()) for row in batch.select(names).to_pylist()}:
                    yield Entry("", "", request=dict(some))


def open_input(uri: str, schemes: list[str] | None = None) -> Input:
    """The entries of `uri`; raises SettingsError when it is nothing that can be read.

    `schemes`: kinds of storage that the rows of a list or manifest may name ("file", "s3", …). By default any
    for a list on a local disk, and its own kind for one that lies elsewhere.
    """
    if not uri.strip():
        raise SettingsError("input", "nothing is named", "give a path or URL (. is the folder you are in)")
    may_name = _may_name(uri, schemes)
    shown = storage.public_uri(uri)
    try:
        if storage.is_dir(uri):
            if embeddings.has_facts(uri):
                return _table_input(storage.join(uri, embeddings.FOLDER), "embeddings", may_name)
            if storage.exists(storage.join(uri, MANIFEST_SIDECAR)):
                return _table_input(storage.join(uri, "manifest"), "manifest", may_name)
            return Input("files", _file_entries(uri))
        if shown.lower().endswith(LIST_ENDINGS):
            if not storage.exists(uri):
                raise SettingsError("input", f"there is no list {shown}", "give a list that exists")
            return _list_input(uri, may_name)
        if shown.lower().endswith(OTHER_LISTS):
            endings = ", ".join(LIST_ENDINGS)
            raise SettingsError("input", f"{shown} is no sound", f"give sound, or a list that ends in {endings}")
    except storage.StorageError as error:
        raise _unreadable(uri, error) from None
    return Input("files", _file_entries(uri))


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


def _file_entries(uri: str) -> Iterator[Entry]:
    from mats_core.audio.signatures import AUDIO_EXTENSIONS

    extensions = AUDIO_EXTENSIONS | TAR_ENDINGS if storage.is_dir(uri) else None
    try:
        for info in storage.list_files(uri, extensions):
            yield from _members(info) if is_tar(info.path) else [Entry(info.uri, info.path, info.size, info.version)]
    except storage.StorageError as error:
        raise _unreadable(uri, error) from None


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


def _list_input(uri: str, may_name: frozenset[str] | None) -> Input:
    schema, batches = read_table(uri)
    shown = f"the list {storage.public_uri(uri)}"
    if "uri" not in schema.names:
        problem = f"{shown} has no column `uri`, but {', '.join(schema.names) or 'none at all'}"
        raise SettingsError("input", problem, "name the column of paths or URLs `uri`")
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise SettingsError("input", f"{shown} has {times} columns `{name}`", "give each a name of its own")
        if name.startswith("__index_level_"):
            remedy = "write it with to_parquet(…, index=False)"
            raise SettingsError("input", f"{shown} has pandas' own column `{name}`", remedy)
        if name in RESERVED or name.startswith("_"):
            problem = f"{shown} has a column `{name}`, a name that this program needs itself"
            raise SettingsError("input", problem, "rename the column")
    kind = schema.field("uri").type
    if not _is_text(kind):
        raise SettingsError("input", f"the column `uri` of {shown} is {kind}", "give paths or URLs, as strings")
    own = pa.schema([f for f in schema if f.name != "uri" and f.name not in REQUEST_COLUMNS])
    return Input("list", _list_entries(uri, batches, own.names, may_name), own, [uri])


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


def _table_input(folder: str, kind: str, may_name: frozenset[str] | None) -> Input:
    """Rows of our own data sets (`mats scan`, `mats embed-audio`): manifest columns are taken as they are."""
    parts = [info.uri for info in generations.files(folder)]
    if not parts:
        problem = f"{storage.public_uri(folder)} has no rows"
        raise SettingsError("input", problem, f"give {'a manifest' if kind == 'manifest' else kind} with rows in it")
    schema, _ = read_table(parts[0])
    ours = {"uri", *RESERVED, *REQUEST_COLUMNS}
    own = pa.schema([f for f in schema if f.name not in ours])
    return Input(kind, _table_entries(parts, own.names, may_name), own, parts if kind == "embeddings" else [])


def _table_entries(parts: list[str], own: list[str], may_name: frozenset[str] | None) -> Iterator[Entry]:
    for part in parts:
        _, batches = read_table(part, without=NESTED)
        for at, row in enumerate(row for batch in batches for row in batch.to_pylist()):
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


def read_table(uri: str, without: Collection[str] = ()) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and row batches of a Parquet, CSV or JSONL file of any size; raises SettingsError when it is not one.

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
    times_as_text = partial(map_type, change=lambda kind: pa.string() if pa.types.is_timestamp(kind) else kind)
    plain = pa.schema([(each.name, times_as_text(each.type)) for each in reader.schema])
    if plain == reader.schema:
        return reader
    file.seek(0)  # JSON has no times: these are strings that look like one
    return read(file, parse_options=json.ParseOptions(explicit_schema=plain))


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
