"""Which kind of thing INPUT is."""

from __future__ import annotations

import glob
from collections import Counter, OrderedDict
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.uris import Uri, uri_text, windows_path
from pipelines.data import embeddings, generations, parquet
from pipelines.data.inputs import manifests
from pipelines.data.inputs.entries import CHANNEL, Entry, Input, may_name, own_columns, refusal
from pipelines.data.inputs.files import file_input, sounds_within, unreadable
from pipelines.data.inputs.rows import Naming, Row, entries_of, list_input, rows_of
from pipelines.data.inputs.sounds import sound_column
from pipelines.data.lists import LIST_ENDINGS, read_table
from pipelines.data.results import Ranges, kept_rows, pruned_rows
from pipelines.data.schemas import MANIFEST_SCHEMA, NESTED, REQUEST_COLUMNS, RESERVED

OTHER_LISTS = (".tsv", ".ndjson", ".json", ".json.gz", ".ndjson.gz", ".txt", ".xls", ".xlsx")
MANIFEST_SIDECAR = "_manifest.json"


def open_input(
    uri: Uri,
    schemes: list[str] | None = None,
    columns: list[str] | None = None,
    all_files: bool = False,
    in_order: bool = False,
) -> Input:
    """The entries of `uri`; raises SettingsError when it is nothing that can be read.

    `schemes`: kinds of storage that the rows of a list or manifest may name ("file", "s3", …). By default any
    for a list on a local disk, and its own kind for one that lies elsewhere. `columns`: those of a list's own that
    are carried along; by default all. `all_files`: of a folder, whatever its files' names end in.
    `in_order`: of audio embeddings, as their files were listed, all chunks of one together.
    """
    uri = uri_text(uri)
    if not uri.strip():
        raise SettingsError("input", "nothing is named", "give a path or URL (. is the folder you are in)")
    allowed = may_name(uri, schemes)
    shown = storage.public_uri(uri)
    ending = shown.lower()
    try:
        if storage.is_dir(uri):
            if embeddings.has_facts(uri):
                return _table_input(storage.join(uri, embeddings.FOLDER), "embeddings", allowed, columns, in_order)
            if storage.exists(storage.join(uri, MANIFEST_SIDECAR)):
                return _table_input(storage.join(uri, "manifest"), "manifest", allowed, columns)
        elif ending.endswith(LIST_ENDINGS + OTHER_LISTS) and not (glob.has_magic(uri) and not storage.exists(uri)):
            kind = _list_kind(uri)
            if kind == "list":
                return list_input(uri, allowed, columns, sounds_within)
            if kind != "sounds":
                own = manifests.own_schema(columns)
                rows = manifests.lhotse_rows(uri, kind)
                named = {name: name for name in own.names if name != CHANNEL}
                skipped: Counter[str] = Counter()
                entries = entries_of(uri, rows, named, Naming(), allowed, skipped, sounds_within)
                return Input("list", entries, own, skipped=skipped)
        elif (windows := windows_path(uri)) is not None and not storage.exists(uri):
            problem = f"{shown} is a path of Windows, {windows}, which this machine does not know"
            raise SettingsError("input", problem, "write it as this machine calls it: /mnt/c/sounds, say")
        return file_input(uri, allowed, columns, all_files)
    except storage.StorageError as error:
        raise unreadable(uri, error) from None


def _list_kind(uri: str) -> str:
    """What a file with the ending of a list is: list, sounds (Parquet that holds them), or a manifest of lhotse.

    Raises SettingsError where it is not there, and where it is no list.
    """
    shown = storage.public_uri(uri)
    ending = shown.lower()
    if not storage.exists(uri):
        raise SettingsError("input", f"there is no list {shown}", "give a list that exists")
    if ending.endswith(".parquet"):
        schema, _ = read_table(uri)
        return "sounds" if "uri" not in schema.names and sound_column(schema, shown) else "list"
    found = manifests.kind_of(uri) if ending.endswith(manifests.ENDINGS) else None
    if ending.endswith(LIST_ENDINGS):
        return found or "list"
    if found is None:
        raise SettingsError("input", f"{shown} is no sound", f"give sound, or a list that ends in {_ENDINGS}")
    return found


_ENDINGS = ", ".join(LIST_ENDINGS)


def _table_input(
    folder: str, kind: str, allowed: frozenset[str] | None, columns: list[str] | None, in_order: bool = False
) -> Input:
    """Rows of our own data sets (`mats scan`, `mats embed-audio`): manifest columns are taken as they are. Those that
    `--prune` left out are."""
    files = generations.files(folder)
    parts = [info.uri for info in files]
    if not parts:
        problem = f"{storage.public_uri(folder)} has no rows"
        raise SettingsError("input", problem, f"give {'a manifest' if kind == 'manifest' else kind} with rows in it")
    schema, _ = read_table(parts[0])
    table = pa.schema([each for each in schema if each.name not in RESERVED])
    own, _ = own_columns(table, storage.public_uri(folder), columns, ("uri",))
    pruned = pruned_rows(folder.rpartition("/")[0])
    rows = _rows_in_order(parts, pruned) if in_order else _rows_of_parts(parts, pruned)
    # note: as text without a space, which `part` has between two of them
    names = {info.uri: quote(info.path, safe="/=") for info in files}
    entries = _table_entries(rows, names, own.names, allowed)
    return Input(kind, entries, own, parts if kind == "embeddings" else [])


def _rows_of_parts(parts: list[str], pruned: Ranges) -> Iterator[tuple[str, int, Row]]:
    """(part, place in it, row) of all rows but the pruned."""
    for part in parts:
        at = 0
        for batch in read_table(part, without=NESTED)[1]:
            kept = kept_rows(batch["row_id"].to_numpy(), pruned) if pruned else [True] * len(batch)
            for row, keep in zip(rows_of(batch), kept, strict=True):
                if keep:
                    yield part, at, row
                at += 1


def _rows_in_order(parts: list[str], pruned: Ranges) -> Iterator[tuple[str, int, Row]]:
    """As `_rows_of_parts`, in order of `row_id`: a file's chunks may lie in several parts."""
    ids = [parquet.read(part, ["row_id"])["row_id"].to_numpy() for part in parts]
    firsts = np.cumsum([0, *map(len, ids)])
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    order = order[kept_rows(every[order], pruned)]
    held: OrderedDict[int, pa.Table] = OrderedDict()
    for place in order:
        number = int(np.searchsorted(firsts, place, side="right")) - 1
        if number not in held:
            names = [name for name in parquet.schema(parts[number]).names if name not in NESTED]
            held[number] = parquet.read(parts[number], names)
            if len(held) > _PARTS_HELD:
                held.popitem(last=False)
        at = int(place - firsts[number])
        (row,) = rows_of(held[number].slice(at, 1).to_batches()[0])
        yield parts[number], at, row


_PARTS_HELD = 8


def _table_entries(
    rows: Iterator[tuple[str, int, Row]], names: dict[str, str], own: list[str], allowed: frozenset[str] | None
) -> Iterator[Entry]:
    for part, at, row in rows:
        chunk = {name: row.get(name) for name in MANIFEST_SCHEMA.names}
        chunk["part"], chunk["part_row"] = names[part], at
        chunk["last"], chunk["decoded_s"] = bool(row.get("last", False)), row.get("decoded_s")
        chunk["uri"] = storage.public_uri(row["uri"])
        reason = refusal(row["uri"], allowed)
        if reason is not None and chunk["error_code"] is None:
            chunk.update(error_code="refused", error_message=reason)
        request = {name: row.get(name) for name in REQUEST_COLUMNS}
        carried = {name: row[name] for name in own}
        size, version = row["size_bytes"] or 0, row["version"] or ""
        yield Entry(row["uri"], row["chunk_id"], size, version, request, carried, chunk=chunk)
