"""The history of evaluations: one Parquet file a run at a URL, and which runs are accepted and pinned.

    HISTORY/runs/<time>-<run>.parquet      a row a metric of a benchmark, with what each item contributed
    HISTORY/events/<time>-<kind>-<run>.json    accept, reject, pin

Files are only ever added, so that any store will do and nobody waits for a lock. `history_gate` compares runs.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import got_allowed
from pipelines.data import parquet
from pipelines.output.record import utc

EVENTS = ("accept", "reject", "pin")
ANSWERED = "answered"
_ROWS = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("started", pa.string()),
        ("out", pa.string()),
        ("model", pa.string()),
        ("model_fingerprint", pa.string()),
        ("settings", pa.string()),
        ("cell", pa.string()),
        ("benchmark", pa.string()),
        ("kind", pa.string()),
        ("labels", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("statistic", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("items", pa.list_(pa.string())),
        ("rows", _ROWS),
    ]
)
_HEAVY = ("items", "rows", "settings")
_KEY = ("cell", "benchmark", "metric")

Key = tuple[str, str, str]
"""A metric: cell, benchmark, name."""


@dataclass(frozen=True)
class Kept:
    """One metric of one run, with what its items contributed.

    Attributes:
        facts: the other columns of its row.
        items: ids of all items of the benchmark.
        counted: places of the items that count, int64 [n].
        table: what each of these contributed, float64 [n, k].
    """

    facts: Mapping[str, Any]
    items: list[str]
    counted: np.ndarray
    table: np.ndarray

    @staticmethod
    def of(row: Mapping[str, Any]) -> Kept:
        """A row (columns of SCHEMA) that is in memory."""
        counted = [place for place, each in enumerate(row["rows"]) if each is not None]
        numbers = np.asarray([row["rows"][place] for place in counted], np.float64)
        return Kept(row, list(row["items"]), np.array(counted, np.int64), numbers.reshape(len(counted), -1))


class History:
    """Runs at a URL. Raises SettingsError where it cannot be read or written."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str, set[Key]] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write one run's rows (columns of SCHEMA) as one file; again for the same run replaces it. Returns its URI."""
        first = rows[0]
        self._keys.pop(first["run_id"], None)
        stamp = first["started"].replace(":", "").replace("-", "")
        uri = storage.join(self.url, "runs", f"{stamp}-{first['run_id']}.parquet")
        with self._writing():
            parquet.write(uri, pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA))
        return uri

    def check_writable(self) -> None:
        """Raises SettingsError where no run can be added. Leaves no file where one may be removed."""
        trial = storage.join(self.url, f"trial-{uuid.uuid4().hex[:8]}")
        self._put(trial, b"")
        with suppress(OSError, storage.StorageError):
            storage.remove_tree(trial)

    def mark(self, kind: str, run_id: str, by: str = "hand") -> None:
        """Accept, reject or pin a run. Raises SettingsError for one that is not here, and for a grid as a standard."""
        if kind not in EVENTS:
            raise got_allowed("event", kind, ", ".join(EVENTS))
        self.check_run(run_id)
        if kind != "reject":
            self.check_single(run_id)
        now = time.time_ns()
        event = {"kind": kind, "run_id": run_id, "at": utc(time.time()), "by": by}
        uri = storage.join(self.url, "events", f"{now:020d}-{kind}-{run_id}.json")
        self._put(uri, json.dumps(event, indent=1).encode())

    def runs(self) -> list[dict[str, Any]]:
        """All rows of all runs, oldest run first, without what each item contributed."""
        columns = [name for name in SCHEMA.names if name not in _HEAVY]
        return [row for uri in self._files("runs", ".parquet") for row in _table(uri, columns).to_pylist()]

    def keys(self, run_id: str) -> set[Key]:
        """The metrics a run has; raises SettingsError when it is not here."""
        if run_id not in self._keys:
            rows = _table(self._file(run_id), _KEY).to_pylist()
            self._keys[run_id] = {(row["cell"], row["benchmark"], row["metric"]) for row in rows}
        return self._keys[run_id]

    def kept(self, run_id: str, keys: Collection[Key]) -> dict[Key, Kept]:
        """Some metrics of a run with what each item contributed; raises SettingsError when it is not here."""
        table = _table(self._file(run_id), [name for name in SCHEMA.names if name != "settings"])
        own = zip(*(table[name].to_pylist() for name in _KEY), strict=True)
        table = table.filter(pa.array([key in keys for key in own], pa.bool_())).combine_chunks()
        facts = table.drop_columns(["items", "rows"]).to_pylist()
        found = {}
        for row, items, rows in zip(facts, table["items"], table["rows"], strict=True):
            each = rows.values  # note: numbers stay in Arrow; as Python floats those of 200 labels would fill a memory
            counted = np.flatnonzero(each.is_valid().to_numpy(zero_copy_only=False))
            numbers = each.flatten().to_numpy(zero_copy_only=False)
            key = row["cell"], row["benchmark"], row["metric"]
            found[key] = Kept(row, items.values.to_pylist(), counted, numbers.reshape(len(counted), -1))
        return found

    def check_single(self, run_id: str) -> None:
        """Raises SettingsError for the run of a grid: its cells are settings tried out, no standard."""
        if not any(cell == "" for cell, _, _ in self.keys(run_id)):
            raise got_allowed("run", run_id, "a run without a grid, which later ones can be compared with")

    def check_run(self, run_id: str) -> None:
        """Raises SettingsError when a run is not here."""
        if run_id not in self.ids():
            raise got_allowed("run", run_id, self._known())

    def ids(self) -> list[str]:
        """Run ids, oldest first."""
        return [_id_of(uri) for uri in self._files("runs", ".parquet")]

    def accepted(self) -> list[str]:
        """Run ids that stand as accepted, in the order they were accepted."""
        standing: list[str] = []
        for event in self._events():
            if event["kind"] in ("accept", "reject") and event["run_id"] in standing:
                standing.remove(event["run_id"])
            if event["kind"] == "accept":
                standing.append(event["run_id"])
        return standing

    def pins(self) -> list[str]:
        """Run ids that were pinned and are not rejected, in the order they were pinned."""
        pins: list[str] = []
        for event in self._events():
            if event["kind"] == "pin":
                pins.append(event["run_id"])
            elif event["kind"] == "reject":
                pins = [run_id for run_id in pins if run_id != event["run_id"]]
        return pins

    def pinned(self) -> str | None:
        """The pinned run: the last of `pins`, else the first one accepted."""
        return next(iter([*self.pins()[::-1], *self.accepted()]), None)

    def _events(self) -> list[dict[str, Any]]:
        return [_event(uri) for uri in self._files("events", ".json")]

    def _file(self, run_id: str) -> str:
        for uri in self._files("runs", ".parquet"):
            if _id_of(uri) == run_id:
                return uri
        raise got_allowed("run", run_id, self._known())

    def _files(self, folder: str, ending: str) -> list[str]:
        try:
            place = storage.join(self.url, folder)
            if not storage.is_dir(place):
                return []
            return sorted(info.uri for info in storage.list_files(place) if info.uri.endswith(ending))
        except storage.StorageError as error:
            raise got_allowed("history", storage.public_uri(self.url), f"a folder to read ({error})") from None

    def _put(self, uri: str, data: bytes) -> None:
        with self._writing():
            storage.write_bytes(uri, data)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, storage.StorageError) as error:
            raise got_allowed("history", storage.public_uri(self.url), f"a folder to write to ({error})") from None

    def _known(self) -> str:
        ids = self.ids()
        return f"a run of this history: {', '.join(ids[-8:])}" if ids else "a run of this history, which has none yet"


def _id_of(uri: str) -> str:
    """The run id in a file's name, which is the time without hyphens, a hyphen, and the id."""
    return uri.rsplit("/", 1)[-1].partition("-")[2].removesuffix(".parquet")


def _event(uri: str) -> dict[str, Any]:
    try:
        event = json.loads(storage.read_bytes(uri))
    except (ValueError, storage.StorageError):
        event = None
    if not isinstance(event, dict) or not {"kind", "run_id"} <= event.keys():
        allowed = f"a JSON file with kind ({', '.join(EVENTS)}) and run_id; move this one away"
        raise got_allowed("history", storage.public_uri(uri), allowed)
    return event


def _table(uri: str, columns: Iterable[str] | None) -> pa.Table:
    try:
        return parquet.read(uri, None if columns is None else list(columns))
    except storage.StorageError as error:
        raise got_allowed("history", storage.public_uri(uri), f"a readable Parquet file ({error})") from None
