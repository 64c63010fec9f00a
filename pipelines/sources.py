"""What INPUT names: a stream of entries, whatever it is.

An entry is one file of a folder or one row of a list. Its `path` is what identifies it (relative to
the folder, or as the list writes it), its `uri` is where it is read.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError

LIST_ENDINGS = (".parquet", ".csv", ".jsonl")
EMBEDDINGS_SIDECAR = "_embeddings.json"
MANIFEST_SIDECAR = "_manifest.json"

MANIFEST_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("format", pa.string()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("duration_source", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
REQUEST_COLUMNS = ("task", "question", "tag")
ROW_COLUMNS = (
    "row_id",
    "text",
    "segments",
    "decoded_s",
    "model_fingerprint",
    "run_id",
    "neighbors",
    "embedding",
    "windows",
    "entry_id",
    "last",
    "part",
    "part_row",
)
"""Columns that answers and the work list add; a user's list may not have them."""


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
    """`kind` is files, list, manifest or embeddings; `own_schema` the user's columns, carried along."""

    kind: str
    entries: Iterator[Entry]
    own_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))


def open_source(uri: str) -> Source:
    """The entries of `uri`; raises SettingsError when it is nothing that can be read."""
    try:
        if storage.is_dir(uri):
            if storage.exists(storage.join(uri, EMBEDDINGS_SIDECAR)):
                return _table_source(storage.join(uri, "embeddings"), "embeddings")
            if storage.exists(storage.join(uri, MANIFEST_SIDECAR)):
                return _table_source(storage.join(uri, "manifest"), "manifest")
            return Source("files", _file_entries(uri))
        if uri.lower().endswith(LIST_ENDINGS):
            if not storage.exists(uri):
                raise SettingsError("input", storage.public_uri(uri), "a list that exists")
            return _list_source(uri)
    except storage.StorageError as error:
        raise SettingsError("input", storage.public_uri(uri), f"something readable ({error})") from None
    return Source("files", _file_entries(uri))


def _file_entries(uri: str) -> Iterator[Entry]:
    from mats_core import audio

    extensions = getattr(audio, "AUDIO_EXTENSIONS", None) if storage.is_dir(uri) else None
    try:
        for info in storage.list_files(uri, extensions):
            yield Entry(info.uri, info.path, info.size, info.version)
    except storage.StorageError as error:
        raise SettingsError("input", storage.public_uri(uri), f"something readable ({error})") from None


def _list_source(uri: str) -> Source:
    schema, batches = _read_table(uri)
    if "uri" not in schema.names:
        raise SettingsError("input", f"columns {', '.join(schema.names)}", "a list with a column `uri`")
    ours = set(MANIFEST_SCHEMA.names) - {"uri"} | set(ROW_COLUMNS)
    for name in schema.names:
        if name in ours or name.startswith("_"):
            raise SettingsError("input", f"a list with a column `{name}`", "names that are not this program's")
    own = pa.schema([f for f in schema if f.name != "uri" and f.name not in REQUEST_COLUMNS])
    return Source("list", _list_entries(uri, batches, own.names), own)


def _list_entries(list_uri: str, batches: Iterator[pa.RecordBatch], own: list[str]) -> Iterator[Entry]:
    folder = list_uri.rsplit("/", 1)[0] if "/" in list_uri else "."
    for batch in batches:
        for row in batch.to_pylist():
            given = row["uri"]
            if not given:
                raise SettingsError("input", "a list row without `uri`", "a path or URL in every row")
            given = str(given)
            absolute = "://" in given or posixpath.isabs(given)
            uri = given if absolute else storage.join(folder, given)
            # an empty cell of a CSV means "not said"
            request = {name: (str(row[name]) if row.get(name) else None) for name in REQUEST_COLUMNS}
            entry = Entry(uri, storage.public_uri(given), request=request, own={name: row[name] for name in own})
            try:
                info = storage.stat(uri)
                entry.size, entry.version = info.size, info.version
            except storage.StorageError as error:
                entry.error = (error.code, str(error))
            yield entry


def _table_source(folder: str, kind: str) -> Source:
    """Rows of our own data sets (`mats scan`, `mats embed-audio`): manifest columns are taken as they are."""
    parts = sorted(info.uri for info in storage.list_files(folder) if info.uri.endswith(".parquet"))
    if not parts:
        raise SettingsError("input", storage.public_uri(folder), f"a data set of {kind} with rows in it")
    schema, _ = _read_table(parts[0])
    ours = set(MANIFEST_SCHEMA.names) | set(ROW_COLUMNS) | set(REQUEST_COLUMNS)
    own = pa.schema([f for f in schema if f.name not in ours])
    return Source(kind, _table_entries(parts, own.names), own)


def _table_entries(parts: list[str], own: list[str]) -> Iterator[Entry]:
    for part in parts:
        schema, _ = _read_table(part)
        wanted = [n for n in schema.names if n not in ("windows", "segments", "embedding", "neighbors")]
        _, batches = _read_table(part, wanted)
        position = 0
        for batch in batches:
            for row in batch.to_pylist():
                chunk = {name: row.get(name) for name in MANIFEST_SCHEMA.names}
                chunk["part"], chunk["part_row"] = part.rsplit("/", 1)[-1], position
                chunk["last"] = bool(row.get("last", False))
                position += 1
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
    try:
        if uri.lower().endswith(".parquet"):
            import pyarrow.parquet as pq

            file = pq.ParquetFile(storage.open_binary(uri))
            return file.schema_arrow, file.iter_batches(batch_size=4096, columns=columns)
        if uri.lower().endswith(".csv"):
            from pyarrow import csv

            reader = csv.open_csv(storage.open_binary(uri))
            return reader.schema, iter(reader)
        from pyarrow import json as arrow_json

        table = arrow_json.read_json(io.BytesIO(storage.read_bytes(uri)))
        return table.schema, iter(table.to_batches(max_chunksize=4096))
    except pa.ArrowInvalid as error:
        first = str(error).splitlines()[0]
        raise SettingsError("input", storage.public_uri(uri), f"a readable list ({first})") from None


def entry_key(entry: Entry, defaults: dict[str, str | None], occurrence: int) -> bytes:
    """What makes an entry the same one when INPUT is scanned again (canonical JSON)."""
    request = [entry.request.get(name) or defaults.get(name) for name in REQUEST_COLUMNS]
    return json.dumps([entry.path, entry.version, request, entry.own, occurrence], sort_keys=True, default=str).encode()
