"""One thing asked about, and what a row of a list may name."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from mats_core import storage
from mats_core.audio.windows import no_stretch
from mats_core.errors import SettingsError
from mats_core.storage.uris import archive_of, is_file_url, lies_inside, wrong_url
from pipelines.data.carried import carried_schema
from pipelines.data.lists import read_table
from pipelines.data.schemas import PLACE_COLUMNS, REQUEST_COLUMNS, RESERVED

START, END, CHANNEL = PLACE_COLUMNS
_MOST_S = 1e9


@dataclass
class Entry:
    """One file of a folder, one row of a list, one member of an archive.

    `path` is what identifies it (in the folder, or as the list writes it), `uri` is where it is read. `start_s` and
    `end_s`: the stretch of it that is meant, in seconds; no end: to that of the file. `chunk` holds the manifest
    columns when they are already known; the work list gives it its `entry_id`.
    """

    uri: str
    path: str
    size: int = 0
    version: str = ""
    request: dict[str, str | None] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    chunk: dict[str, Any] | None = None
    entry_id: int = 0
    start_s: float = 0.0
    end_s: float | None = None

    def take_stretch(self, start: Any, end: Any) -> None:
        """Mean the stretch from `start` to `end` alone, given as numbers, texts or nothing; an error where it is
        none."""
        try:
            first, stop = _seconds(start) or 0.0, _seconds(end)
        except (ValueError, TypeError, OverflowError):
            self.error = ("refused", f"is the stretch from {start!r} to {end!r}, which are no seconds"[:300])
            return
        if (why := no_stretch(first, stop, _MOST_S)) is not None:
            self.error = ("refused", why)
            return
        self.start_s, self.end_s = first, stop


def _seconds(given: Any) -> float | None:
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    if isinstance(given, bool) or not math.isfinite(seconds := float(given)):
        raise ValueError
    return seconds


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
                for some in {tuple(request_of(row).items()) for row in batch.to_pylist()}:
                    yield Entry("", "", request=dict(some))


def request_of(row: dict[str, Any]) -> dict[str, str | None]:
    """What a row asks for; an empty cell of a CSV means "not said"."""
    return {name: (str(row[name]) if row.get(name) else None) for name in REQUEST_COLUMNS}


def entry_key(entry: Entry, defaults: dict[str, str | None], occurrence: int) -> bytes:
    """What makes an entry the same one when INPUT is scanned again (canonical JSON)."""
    request = [entry.request.get(name) or defaults.get(name) for name in REQUEST_COLUMNS]
    stretch = [[entry.start_s, entry.end_s]] if entry.start_s or entry.end_s is not None else []
    key = [entry.path, entry.version, request, entry.own, occurrence, *stretch]
    return json.dumps(key, sort_keys=True, default=str).encode()


def may_name(uri: str, schemes: list[str] | None) -> frozenset[str] | None:
    """Kinds of storage that rows may name; None for any. Raises SettingsError for a kind that is none."""
    if schemes is not None:
        for name in schemes:
            if not storage.is_known_scheme(name):
                remedy = "name file, s3, gs, az, http, https, or another kind that fsspec knows"
                raise SettingsError("schemes", f'"{name}" is no kind of storage', remedy)
        return frozenset(schemes)
    kind = storage.scheme(uri)
    return frozenset({kind}) if kind else None


def refusal(uri: str, allowed: frozenset[str] | None) -> str | None:
    """Why a row may not name `uri` (code refused), or None where it may."""
    while lies_inside(uri):
        inner = archive_of(uri)
        if inner == uri:
            return "is no member of an archive and no row of a Parquet file"
        uri = inner
    reason = wrong_url(uri)
    if reason is not None:
        return reason
    kind = storage.scheme(uri)
    shown = kind or "file"
    if allowed is not None and shown not in allowed:
        what = "a local file" if shown == "file" else f"{shown}://"
        return f"names {what}; this list may name {', '.join(sorted(allowed)) or 'nothing'} (--schemes)"
    # note: in an object store ".." is a name like any other, and there is nothing it would lead to
    path = unquote(uri) if kind in ("http", "https") or is_file_url(uri) else uri
    if kind in ("", "http", "https", "ftp", "sftp", "ssh", "smb") and ".." in path.partition("?")[0].split("/"):
        return 'has a step ".." in its path, which is not followed'
    if "\0" in path:
        return "has a zero byte in its name"
    return None


def own_columns(
    schema: pa.Schema, shown: str, columns: list[str] | None, not_own: tuple[str, ...], renamed: bool = False
) -> tuple[pa.Schema, dict[str, str]]:
    """The columns of a table that are the user's own, those of `columns` where it is given, as they are carried along,
    and the name that each has in the table.

    not_own: columns that say where the sound is. renamed: those with a name of ours are carried as own_NAME, for others
    made the table; else they are refused. Raises SettingsError, for a column that cannot be carried along too.
    """
    for name in columns or ():
        if name not in schema.names:
            problem = f"{shown} has no column `{name}`, but {', '.join(schema.names) or 'none at all'}"
            remedy = f"choose some of these (only `{not_own[0]}`: none is carried along)"
            raise SettingsError("columns", problem, remedy)
    for name, times in Counter(schema.names).items():
        if times > 1:
            raise SettingsError("input", f"{shown} has {times} columns `{name}`", "give each a name of its own")
    fields, named = [], {}
    for each in schema:
        if each.name in (*not_own, *REQUEST_COLUMNS, *PLACE_COLUMNS) or (
            columns is not None and each.name not in columns
        ):
            continue
        name = each.name
        if is_ours(name) and renamed:
            name = f"own_{name}"
            if name in schema.names:
                raise SettingsError("input", f"{shown} has columns `{each.name}` and `{name}`", "rename the latter")
        elif is_ours(name):
            problem = f"{shown} has a column `{name}`, a name that this program needs itself"
            raise SettingsError("input", problem, "rename the column")
        fields.append(each.with_name(name))
        named[name] = each.name
    found = carried_schema(pa.schema(fields), shown)
    return (found.append(pa.field(CHANNEL, pa.int64())) if CHANNEL in schema.names else found), named


def is_ours(name: str) -> bool:
    """Whether a column of a list may not have this name."""
    return name in RESERVED or name == "uri" or name.startswith("_")
