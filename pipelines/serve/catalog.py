"""A run's rows in a DuckDB file of the cache, so that a page of ten million takes as long as one of a thousand.

    rows    number: its place here, from 0; the columns that are filtered or listed; the part file, and the place in it
    words   a word and a block of BLOCK rows → which rows of the block have it, uint16 each, as a search engine keeps it
    parts   the part files that are in it, and their sizes

Rows that a condition or words choose are a mask, bool [rows], that is kept: the next page of a search costs nothing.
A run that was continued adds its new parts; one whose parts are gone is read anew. The file is made beside its place
and moved there, so that servers may share it; it is only read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import cache_folder
from pipelines.compact import read_part
from pipelines.data import generations, parquet
from pipelines.data.results import pruned_rows, without_rows

if TYPE_CHECKING:
    import duckdb

FORMAT = 1
BLOCK = 65_536
"""Rows that are indexed together: as many as two bytes tell apart."""
LISTED: dict[str, pa.DataType] = {
    "row_id": pa.int64(),
    "chunk_id": pa.string(),
    "uri": pa.string(),
    "start_s": pa.float64(),
    "duration_s": pa.float64(),
    "decoded_s": pa.float64(),
    "format": pa.string(),
    "sample_rate": pa.int64(),
    "channels": pa.int64(),
    "only_channel": pa.int64(),
    "task": pa.string(),
    "question": pa.string(),
    "text": pa.string(),
    "text_unsure": pa.string(),
    "error_code": pa.string(),
    "error_message": pa.string(),
    "silent": pa.bool_(),
    "complete": pa.bool_(),
    "confidence": pa.float64(),
}
"""Columns of a row that pages list and filter; null where an older run has none."""
MEMORY = "2GB"
READERS = 16
SPLITS = " .,;:!?()[]{}\"'’“”«»/\\|-–—_*#&+=<>~^%$@`\t\n\r"
"""Between words."""
_SPACED = str.maketrans(SPLITS, " " * len(SPLITS))

Tell = Callable[[int, int], None]


def parts_of(run: str) -> dict[str, int]:
    """Part files of a run's answers → their sizes. Raises SettingsError where there are none."""
    parts = {info.path: info.size for info in generations.files(storage.join(run, "answers"))}
    if not parts:
        lacks = "holds no answers" if storage.is_dir(run) else "is no folder that exists"
        raise SettingsError("runs", f"{storage.public_uri(run)} {lacks}", "give the OUTPUT of `mats caption`")
    return parts


def open_catalog(run: str, tell: Tell | None = None) -> Catalog:
    """The catalog of a run, brought up to its part files. tell: told of rows done and in all. Raises SettingsError."""
    parts, pruned = parts_of(run), pruned_rows(run)
    place = cache_folder("serve") / f"{_digest((FORMAT, list(LISTED), run))}.duckdb"
    state = _digest((sorted(parts.items()), pruned))
    with FileLock(f"{place}.lock"):
        if _state_of(place) != state:
            draft = place.with_suffix(".partial")
            _drop(draft)
            try:
                folder = storage.join(run, "answers")
                _make(place, draft, folder, parts, pruned, state, tell or (lambda done, of: None))
                os.replace(draft, place)
            finally:
                _drop(draft)
        return Catalog(place)


def _drop(draft: Path) -> None:
    """Remove what a killed process left. note: DuckDB replays a log that lies there into the next file of the name."""
    for each in (draft, draft.with_name(f"{draft.name}.wal")):
        each.unlink(missing_ok=True)


def _digest(told: object) -> str:
    return hashlib.blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _connect(place: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    import duckdb

    settings: dict[str, Any] = {
        "enable_external_access": "false", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false", "allow_community_extensions": "false",
        "python_enable_replacements": "false", "memory_limit": MEMORY,
    }  # fmt: skip
    return duckdb.connect(str(place), read_only=read_only, config=settings)


def _state_of(place: Path) -> str | None:
    """Which part files the catalog there was made of; None where there is none that can be read."""
    import duckdb

    if not place.exists():
        return None
    with suppress(duckdb.Error), _connect(place, read_only=True) as database:
        found = database.execute("SELECT state FROM made").fetchall()
        return str(found[0][0]) if found else None
    return None


def _make(place: Path, draft: Path, folder: str, parts: dict[str, int], pruned: Any, state: str, tell: Tell) -> None:
    known = _known_parts(place)
    kept = known is not None and known.items() <= parts.items() and not pruned
    if kept:
        shutil.copyfile(place, draft)
    with _connect(draft, read_only=False) as database:
        if not kept:
            types = {pa.bool_(): "BOOLEAN", pa.float64(): "DOUBLE", pa.int64(): "BIGINT", pa.string(): "VARCHAR"}
            columns = ", ".join(f"{name} {types[kind]}" for name, kind in LISTED.items())
            database.execute(f"CREATE TABLE rows (number BIGINT, {columns}, part INTEGER, place BIGINT)")
            database.execute("CREATE TABLE words (word VARCHAR, first BIGINT, rows BLOB)")
            database.execute("CREATE TABLE parts (part INTEGER, path VARCHAR, size BIGINT)")
            database.execute("CREATE TABLE made (state VARCHAR)")
        before = dict(known or {}) if kept else {}
        places = {path: storage.join(folder, *path.split("/")) for path in sorted(set(parts) - set(before))}
        with ThreadPoolExecutor(READERS) as pool:
            read = zip(pool.map(read_part, places.values()), places, strict=True)
            new = sorted((part, path) for part, path in read if part.rows)
        numbers = {path: number for number, (_, path) in enumerate(new, len(before))}
        total = sum(part.rows for part, _ in new)
        first, done = int(database.execute("SELECT count(*) FROM rows").fetchall()[0][0]), 0
        for block in _blocks(folder, numbers, pruned):
            _add(database, block, first + done)
            done += len(block)
            tell(done, total)
        for path, number in numbers.items():
            database.execute("INSERT INTO parts VALUES (?, ?, ?)", [number, path, parts[path]])
        database.execute("DELETE FROM made")
        database.execute("INSERT INTO made VALUES (?)", [state])
        database.execute("CHECKPOINT")


def _known_parts(place: Path) -> dict[str, int] | None:
    import duckdb

    if not place.exists():
        return None
    with suppress(duckdb.Error), _connect(place, read_only=True) as database:
        return dict(database.execute("SELECT path, size FROM parts").fetchall())
    return None


def _blocks(folder: str, numbers: dict[str, int], pruned: Any) -> Iterator[pa.Table]:
    """Rows as the catalog has them, about BLOCK at a time."""
    waiting = pa.table({})
    for path, number in numbers.items():
        at, uri = 0, storage.join(folder, *path.split("/"))
        for batch in parquet.batches(uri, BLOCK, list(LISTED)):
            table = pa.Table.from_batches([batch])
            columns = {
                name: table[name].cast(kind) if name in table.schema.names else pa.nulls(len(table), kind)
                for name, kind in LISTED.items()
            }
            columns["part"] = pa.array(np.full(len(table), number, np.int32))
            columns["place"] = pa.array(np.arange(at, at + len(table)))
            at += len(table)
            more = without_rows(pa.table(columns), pruned)
            waiting = pa.concat_tables([waiting, more]) if len(waiting) else more
            while len(waiting) >= BLOCK:
                yield waiting.slice(0, BLOCK)
                waiting = waiting.slice(BLOCK)
    if len(waiting):
        yield waiting


def _add(database: duckdb.DuckDBPyConnection, block: pa.Table, first: int) -> None:
    """Add at most BLOCK rows, the first of which has the number `first`."""
    block = block.sort_by("row_id")
    block = block.add_column(0, "number", pa.array(np.arange(first, first + len(block))))
    database.register("block", block)
    database.execute("INSERT INTO rows SELECT * FROM block")
    database.unregister("block")
    having: dict[str, list[int]] = {}
    said = pc.coalesce(block["text"], block["text_unsure"])
    for at, text in enumerate(said.to_pylist()):
        for word in set(words_of(text)) if text else ():
            having.setdefault(word, []).append(at)
    if having:
        words = sorted(having)
        rows = [np.array(having[word], "<u2").tobytes() for word in words]
        database.register("found", pa.table({"word": words, "first": np.full(len(words), first), "rows": rows}))
        database.execute("INSERT INTO words SELECT * FROM found")
        database.unregister("found")


def words_of(text: str) -> list[str]:
    """The words of a text as they are indexed."""
    return text.lower().translate(_SPACED).split()


class Catalog:
    """The rows of a run, to be filtered and listed. May be used by several threads."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._database = _connect(place, read_only=True)
        self._ids: np.ndarray | None = None
        facts = self._database.execute("SELECT count(*), count(confidence) FROM rows").fetchall()[0]
        self.rows, self.confident = int(facts[0]), int(facts[1])
        self.roots = self._roots()
        self.paths = dict(self._database.execute("SELECT part, path FROM parts").fetchall())
        self.values = {name: self._counts(name) for name in ("task", "format", "error_code")}

    def _roots(self) -> list[str]:
        """What the URIs of a kind begin with, up to a folder's end: of paths, of file://, of s3://, …"""
        kind = "regexp_extract(uri, '^[A-Za-z][A-Za-z0-9+.-]*://')"
        found = self._database.execute(f"SELECT min(uri), max(uri) FROM rows GROUP BY {kind}").fetchall()
        prefixes = [os.path.commonprefix([first or "", last or ""]) for first, last in found]  # noqa: RUF071 (letters)
        return [prefix[: prefix.rfind("/") + 1] for prefix in prefixes]

    def _counts(self, column: str) -> dict[str, int]:
        """Values of a column → in how many rows, the most frequent first."""
        sql = f"SELECT {column}, count(*) AS n FROM rows WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1"
        return dict(self._database.execute(f"{sql} LIMIT 50").fetchall())

    def select(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query of ours."""
        return self._database.cursor().execute(sql, list(values)).fetchall()

    def listed(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of these numbers, in order of them."""
        sql = f"SELECT {', '.join(LISTED)} FROM rows WHERE number IN (SELECT unnest(?::BIGINT[])) ORDER BY number"
        return [dict(zip(LISTED, row, strict=True)) for row in self.select(sql, [list(map(int, places))])]

    def where(self, condition: str, values: Sequence[Any]) -> np.ndarray:
        """bool [rows]: for which the condition, SQL of ours, holds."""
        found = self._database.cursor().execute(f"SELECT number FROM rows WHERE {condition}", list(values)).fetchnumpy()
        mask = np.zeros(self.rows, bool)
        mask[np.asarray(found["number"], np.int64)] = True
        return mask

    def with_words(self, beginnings: Sequence[str]) -> np.ndarray:
        """bool [rows]: whose text has, for each of these, a word that begins so; none where these are none."""
        if not beginnings:
            return np.zeros(self.rows, bool)
        chosen = " OR ".join(["starts_with(word, ?)"] * len(beginnings))
        sql = f"SELECT word, first, rows FROM words WHERE {chosen}"
        found = self._database.cursor().execute(sql, list(beginnings)).fetchall()
        masks = {each: np.zeros(self.rows, bool) for each in beginnings}
        for word, first, rows in found:
            at = np.frombuffer(rows, "<u2")
            for beginning, mask in masks.items():
                if word.startswith(beginning):
                    mask[first : first + BLOCK][at] = True
        return np.logical_and.reduce(list(masks.values()))

    def places(self, row_ids: Sequence[int]) -> np.ndarray:
        """The numbers of the rows of these ids, int64."""
        sql = "SELECT number FROM rows WHERE row_id IN (SELECT unnest(?::BIGINT[]))"
        return np.array([row[0] for row in self.select(sql, [list(row_ids)])], np.int64)

    def ids(self, places: np.ndarray) -> np.ndarray:
        """The row ids of these numbers, int64, in order of the numbers."""
        if self._ids is None:
            found = self._database.cursor().execute("SELECT number, row_id FROM rows").fetchnumpy()
            ids = np.empty(self.rows, np.int64)
            ids[np.asarray(found["number"], np.int64)] = found["row_id"]
            self._ids = ids
        return self._ids[places]

    def shortest(self, places: np.ndarray, most: int) -> list[int]:
        """The ids of the rows with the shortest texts among these numbers."""
        sql = (
            "SELECT row_id FROM rows WHERE number IN (SELECT unnest(?::BIGINT[])) ORDER BY length(text), row_id LIMIT ?"
        )
        return [row[0] for row in self.select(sql, [places[:100_000].tolist(), most])]

    def by_ids(self, row_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The rows of these ids, those that there are."""
        sql = f"SELECT {', '.join(LISTED)} FROM rows WHERE row_id IN (SELECT unnest(?::BIGINT[]))"
        found = (dict(zip(LISTED, row, strict=True)) for row in self.select(sql, [list(row_ids)]))
        return {row["row_id"]: row for row in found}

    def place_of(self, row_id: int) -> tuple[str, int] | None:
        """(part file, place in it) of a row."""
        found = self.select("SELECT part, place FROM rows WHERE row_id = ?", [row_id])
        return (self.paths[found[0][0]], int(found[0][1])) if found else None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
