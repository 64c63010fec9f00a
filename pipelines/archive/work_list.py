"""The frozen work list: what was asked, row by row, each with an int64 `row_id`.

Parquet files of at most FILE_ROWS rows, named by their first row_id and the run that wrote them (`data.generations`),
written once and never changed.
Scanning again appends what is new or changed; an entry's rows never straddle two files, so a scan that
is killed leaves whole entries only.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.headers import ScanCounts, Scanner
from pipelines.archive.presence import Presence
from pipelines.data import generations, parquet
from pipelines.data.carried import carried_type, known_type, unfit
from pipelines.data.inputs import Entry, Input, entry_key
from pipelines.data.private_uris import PrivateUris
from pipelines.data.schemas import MANIFEST_SCHEMA, REQUEST_COLUMNS, WORK_SCHEMA
from pipelines.output.folder import Output

FILE_ROWS = 8192


def work_schema(own: pa.Schema, manifest_only: bool = False) -> pa.Schema:
    """Columns of the work list: ids, manifest, request and the user's own."""
    ids, (last, *place) = list(WORK_SCHEMA)[:2], list(WORK_SCHEMA)[2:]
    request = [pa.field(name, pa.string()) for name in REQUEST_COLUMNS]
    rest = [last] if manifest_only else [*request, last, *place]
    return pa.schema([*ids, *MANIFEST_SCHEMA, *rest, *[pa.field(each.name, known_type(each.type)) for each in own]])


def _fits(now: pa.DataType, frozen: pa.DataType) -> bool:
    """Whether all values of a column can be kept in the type that it has in the work list."""
    if now == frozen or pa.types.is_null(now) or known_type(now) == carried_type(frozen):
        return True
    if pa.types.is_nested(now) or pa.types.is_nested(frozen):
        if pa.types.is_list(now) and pa.types.is_list(frozen):
            return _fits(now.value_type, frozen.value_type)
        return known_type(now) == frozen
    if _is_text(frozen) or (pa.types.is_integer(now) and pa.types.is_floating(frozen)):
        return True
    return pa.types.is_signed_integer(now) and pa.types.is_signed_integer(frozen) and now.bit_width <= frozen.bit_width


def _cast(kind: pa.DataType, value: Any) -> Any:
    """A value in the type that its column has in the work list, whatever type INPUT gives the column this time.

    So an entry stays the same one when other rows stand beside it. Its column's type `_fits`.
    """
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_cast(kind.value_type, each) for each in value]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        return {each.name: _cast(each.type, value.get(each.name)) for each in kind}
    if pa.types.is_floating(kind) and isinstance(value, int):
        return float(value)
    return str(value) if _is_text(kind) and value is not None else value


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


class WorkList:
    """The work list at a folder URI: `total` rows, `row_id` 0 … total-1 without gaps.

    own: the user's own columns; manifest_only: a manifest, without requests; out: its OUTPUT, for who writes
    it. Raises SettingsError where the list there was begun with other columns, is damaged, or lacks a file.
    """

    def __init__(
        self, folder: str, own: pa.Schema | None = None, manifest_only: bool = False, out: Output | None = None
    ) -> None:
        self.folder, self._out = folder, out
        if lost := generations.missing(folder):
            raise _lost(lost[0])
        self._files = [info.uri for info in generations.files(folder)]
        self._firsts = [_first_row(uri) for uri in self._files]
        self._cached: tuple[int, pa.Table] | None = None
        self.private = PrivateUris()
        self.presence = Presence()
        self.unmet = np.empty(0, np.int64)  # ids of entries that an earlier scan found and the last one did not
        if self._files:
            with _refusing_damage(self._files[-1]), parquet.opened(self._files[-1]) as last:
                self.schema = last.schema_arrow
                self.total = self._firsts[-1] + last.metadata.num_rows
            if own is not None:
                self._check_own(own, manifest_only)
        else:
            self.schema = work_schema(own if own is not None else pa.schema([]), manifest_only)
            self.total = 0

    def _check_own(self, own: pa.Schema, manifest_only: bool) -> None:
        if work_schema(own, manifest_only).names != self.schema.names:
            ours = set(work_schema(pa.schema([]), manifest_only).names)
            before = ", ".join(n for n in self.schema.names if n not in ours) or "none"
            now = ", ".join(own.names) or "none"
            problem = f"its own columns are {now}, and those of the list that OUTPUT was begun with are {before}"
            raise SettingsError("input", problem, "give a list with the columns as before, or choose another OUTPUT")
        for each in own:
            frozen = self.schema.field(each.name).type
            if not _fits(each.type, frozen):
                problem = f"its column `{each.name}` is {each.type}, and was {frozen} when OUTPUT was begun"
                raise SettingsError("input", problem, "give it the type as before, or choose another OUTPUT")

    def read(self, first: int, stop: int) -> pa.Table:
        """Rows first … stop-1."""
        tables = []
        while first < stop:
            index = bisect.bisect_right(self._firsts, first) - 1
            if self._cached is None or self._cached[0] != index:
                self._cached = (index, parquet.read(self._files[index]))
            tables.append(self._cached[1].slice(first - self._firsts[index], stop - first))
            first += len(tables[-1])
        return pa.concat_tables(tables)

    def shards(self, done: np.ndarray, rows: int) -> Iterator[pa.Table]:
        """`rows` rows at a time, those that have unfinished ones. done: bool [total]."""
        for first in range(0, self.total, rows):
            mask = done[first : first + rows]
            if not mask.all():
                yield shard_table(first, first + len(mask), mask)

    def unfinished(self, shard: dict[str, Any]) -> pa.Table:
        """The unfinished rows of a shard (`shard_table`)."""
        table = self.read(shard["first"], shard["stop"])
        finished = np.unpackbits(np.frombuffer(shard["mask"], np.uint8), count=len(table)).astype(bool)
        return table.filter(pa.array(~finished)) if finished.any() else table

    def _known_ids(self) -> np.ndarray:
        """Sorted entry ids of all rows, int64 [N]."""
        columns = [np.empty(0, np.int64)]
        for uri, first in zip(self._files, self._firsts, strict=True):
            if first != sum(map(len, columns)):
                raise _lost(uri, "the file before ")
            with _refusing_damage(uri):
                columns.append(parquet.read(uri, ["entry_id"])["entry_id"].to_numpy())
        return np.unique(np.concatenate(columns))

    def extend(
        self,
        inputs: Input,
        scanner: Scanner,
        defaults: dict[str, str | None],
        progress: Callable[[ScanCounts], None] | None = None,
        check: Callable[[Entry], None] | None = None,
    ) -> tuple[ScanCounts, int]:
        """Append the entries of `inputs` that are not known yet; (what was added, how many were known).

        URIs with a secret are kept in `private`, of known entries too: a list may be signed anew for every run.
        `check` may raise SettingsError for an entry that cannot be asked; InputGone is raised where INPUT goes away.
        """
        known, counts = self._known_ids(), ScanCounts(skipped=inputs.skipped)
        occurrences = _Occurrences() if inputs.kind == "list" else None  # only lists repeat an entry
        met = np.zeros(len(known), bool)
        skipped = 0

        def fresh() -> Iterator[Entry]:
            nonlocal skipped
            for entry in inputs.entries:
                self.presence.note(entry)
                entry.own = {name: _cast(self.schema.field(name).type, value) for name, value in entry.own.items()}
                if check is not None:
                    check(entry)
                entry_id = _hash64(entry_key(entry, defaults, 0))
                if occurrences is not None and (nth := occurrences.count(entry_id)):
                    entry_id = _hash64(entry_key(entry, defaults, nth))
                if storage.public_uri(entry.uri) != entry.uri:
                    self.private.add(entry_id, entry.uri)
                at = int(np.searchsorted(known, entry_id))
                if at < len(known) and known[at] == entry_id:
                    met[at] = True
                    skipped += 1
                    continue
                entry.request = {name: entry.request.get(name) or defaults.get(name) for name in REQUEST_COLUMNS}
                entry.entry_id = entry_id
                yield entry

        rows: list[dict[str, Any]] = []
        for entry, chunks in scanner.rows(fresh()):
            if entry.error is None and chunks[0]["error_code"] == "not_found":
                self.presence.check()
            counts.add(chunks)
            rows += ({**chunk, **entry.request, **entry.own, "entry_id": entry.entry_id} for chunk in chunks)
            if len(rows) >= FILE_ROWS:
                self.append(rows)
                rows = []
            if progress is not None and counts.files % 64 == 0:
                progress(counts)
        self.append(rows)
        self.unmet = known[~met]
        return counts, skipped

    def gone(self) -> tuple[int, list[list[int]]]:
        """How many known files the last scan did not find, and their rows: [first, last] of each stretch of row ids.

        A file that was changed is another entry, and its older rows go with it; it is not counted.
        """
        if not len(self.unmet):
            return 0, []
        uris, rows, there = set(), [], set()
        for uri, first in zip(self._files, self._firsts, strict=True):
            table = parquet.read(uri, ["entry_id", "uri"])
            lost = np.isin(table["entry_id"].to_numpy(), self.unmet)
            rows.append(first + np.flatnonzero(lost))
            uris.update(table.filter(pa.array(lost))["uri"].to_pylist())
            there.update(table.filter(pa.array(~lost))["uri"].to_pylist())
        at = np.concatenate(rows)
        cuts = np.flatnonzero(np.diff(at) > 1) + 1
        return len(uris - there), [[int(each[0]), int(each[-1])] for each in np.split(at, cuts)]

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write rows as a further file; they get the next row_ids. Raises SettingsError for what no file can hold."""
        if not rows:
            return
        for offset, row in enumerate(rows):
            row["row_id"] = self.total + offset
        name = f"rows-{self.total:012d}" + ("" if self._out is None else f"-{self._out.run_id}") + ".parquet"
        uri = storage.join(self.folder, name)
        try:
            table = pa.Table.from_pylist(rows, schema=self.schema)
            if self._out is None:
                parquet.write(uri, table)
            else:
                self._out.put_table(f"{generations.place_of(self.folder)[1]}/{name}", table)
        except (pa.ArrowException, OverflowError) as error:
            raise unfit(rows, self.schema, error) from None
        self._files.append(uri)
        self._firsts.append(self.total)
        self.total += len(rows)


def shard_table(first: int, stop: int, mask: np.ndarray) -> pa.Table:
    """One shard as the row that Ray sends to a decoding actor. mask: bool [stop-first], True is finished."""
    packed = np.packbits(mask).tobytes()
    return pa.table({"first": [first], "stop": [stop], "mask": pa.array([packed], pa.binary())})


class _Occurrences:
    """Counts how often each id came, in 12 bytes an id: those of a list of millions would not fit as Python objects."""

    _RECENT = 1 << 16

    def __init__(self) -> None:
        self._ids, self._counts = np.empty(0, np.int64), np.empty(0, np.int32)
        self._recent: dict[int, int] = {}

    def count(self, number: int) -> int:
        """How often the id came before; this time is counted too."""
        before = self._recent.get(number)
        if before is None:
            at = int(np.searchsorted(self._ids, number))
            before = int(self._counts[at]) if at < len(self._ids) and self._ids[at] == number else 0
        self._recent[number] = before + 1
        if len(self._recent) >= self._RECENT:
            self._merge()
        return before

    def _merge(self) -> None:
        ids = np.concatenate([np.fromiter(self._recent.keys(), np.int64), self._ids])
        counts = np.concatenate([np.fromiter(self._recent.values(), np.int32), self._counts])
        self._ids, first = np.unique(ids, return_index=True)  # of an id that is in both, the recent count
        self._counts = counts[first]
        self._recent.clear()


def _hash64(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little", signed=True)


def _first_row(uri: str) -> int:
    found = re.search(r"/rows-(\d{12,})(-[0-9a-f]{12})?\.parquet$", uri)
    if found is None:
        raise SettingsError("output", f"{storage.public_uri(uri)} is no file that a scan wrote", "move it away")
    return int(found[1])


def _lost(uri: str, where: str = "") -> SettingsError:
    problem = f"its work list is not whole: {where}{storage.public_uri(uri)} is lost"
    return SettingsError("output", problem, "bring the file back, or begin anew with --overwrite")


@contextmanager
def _refusing_damage(uri: str) -> Iterator[None]:
    """Raises SettingsError where a file of the work list is damaged."""
    try:
        yield
    except parquet.NotParquet as error:
        problem = f"{storage.public_uri(uri)} is damaged ({error.message})"
        raise SettingsError("output", problem, "begin anew with --overwrite") from None
