"""The history of evaluations: one Parquet file a run at a URL, and which runs are accepted and pinned.

    HISTORY/runs/<time>-<run>.parquet      a row a metric of a data set, with what each item contributed
    HISTORY/events/<time>-<kind>-<run>.json    accept, reject, pin

Files are only ever added, so that any store will do and nobody waits for a lock. `gate` compares runs.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import sealed, unsealed
from mats_core.storage.uris import Uri, uri_text
from pipelines.data import parquet
from pipelines.data.schemas import Columns, schema_of
from pipelines.output.record import utc
from pipelines.pages.charts import Point

EVENTS = ("accept", "reject", "pin")
ANSWERED = "answered"
_HEAVY = ("items", "rows", "settings")
_TEXT, _NUMBER = pa.string(), pa.float64()
COLUMNS: Columns = {
    "run_id": (_TEXT, "Which run."),
    "started": (_TEXT, "When it began, UTC."),
    "out": (_TEXT, "Where its predictions and its page are."),
    "model": (_TEXT, "The model, as it was named."),
    "model_fingerprint": (_TEXT, "Which model that was."),
    "settings": (_TEXT, "The run's settings that change answers, as JSON."),
    "cell": (_TEXT, "The cell of a grid; empty without one."),
    "benchmark": (_TEXT, "The data set."),
    "kind": (_TEXT, "Its kind: caption, label, labels, choice, chat."),
    "labels": (_TEXT, "Which labels it has, as a hash."),
    "metric": (_TEXT, "The metric."),
    "value": (_NUMBER, "What it came to."),
    "low": (_NUMBER, "Where its 95 % interval begins."),
    "high": (_NUMBER, "Where that ends."),
    "n": (pa.int64(), "Items that it is of."),
    "statistic": (_TEXT, "How it comes of the items' own values, by which runs are compared."),
    "higher_is_better": (pa.bool_(), "Which way is up."),
    "items": (pa.list_(_TEXT), "The items' ids."),
    "rows": (pa.list_(pa.list_(_NUMBER)), "Each item's own values."),
}
SCHEMA = schema_of(COLUMNS)


class Key(NamedTuple):
    """A metric of a run. benchmark: the name of the data set; cell: "" for a run without a grid."""

    cell: str
    benchmark: str
    metric: str


@dataclass(frozen=True)
class ItemValues:
    """One metric of one run. row: its other columns; items: ids of all items of the data set. counted: places of the
    items that count, int64 [n]; table: what each of these contributed, float64 [n, k]."""

    row: Mapping[str, Any]
    items: list[str]
    counted: np.ndarray
    table: np.ndarray

    @staticmethod
    def of(row: Mapping[str, Any]) -> ItemValues:
        """A row (columns of SCHEMA) that is in memory."""
        counted = [place for place, each in enumerate(row["rows"]) if each is not None]
        numbers = np.asarray([row["rows"][place] for place in counted], np.float64)
        return ItemValues(row, list(row["items"]), np.array(counted, np.int64), numbers.reshape(len(counted), -1))


class History:
    """Runs at a URL. Raises SettingsError where it cannot be read or written."""

    def __init__(self, url: Uri) -> None:
        self.url = uri_text(url)
        self._keys: dict[str, set[Key]] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one run's rows (columns of SCHEMA) as one file; again for the same run replaces it."""
        first = rows[0]
        self._keys.pop(first["run_id"], None)
        stamp = first["started"].replace(":", "").replace("-", "")
        uri = storage.join(self.url, "runs", f"{stamp}-{first['run_id']}.parquet")
        with self._refused("written to"):
            parquet.write(uri, pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA))

    def check_writable(self) -> None:
        """Raises SettingsError where no run can be added. Leaves no file where one may be removed."""
        trial = storage.join(self.url, f"trial-{uuid.uuid4().hex[:8]}")
        with self._refused("written to"):
            storage.write_bytes(trial, b"")
        with suppress(OSError, storage.StorageError):
            storage.remove_tree(trial)

    def mark(self, kind: str, run_id: str, by: str = "hand") -> None:
        """Accept, reject or pin a run. Raises SettingsError for one that is not here, and for a grid as a standard."""
        if kind not in EVENTS:
            raise SettingsError("event", f'"{kind}" is not an event', f"choose one of {', '.join(EVENTS)}")
        self.uri_of(run_id)
        if kind != "reject":
            self.check_single(run_id)
        event = {"kind": kind, "run_id": run_id, "at": utc(time.time()), "by": by}
        uri = storage.join(self.url, "events", f"{time.time_ns():020d}-{kind}-{run_id}.json")
        with self._refused("written to"):
            storage.write_bytes(uri, json.dumps(sealed(event), indent=1).encode())

    def runs(self) -> list[dict[str, Any]]:
        """All rows of all runs, oldest run first, without what each item contributed."""
        columns = [name for name in SCHEMA.names if name not in _HEAVY]
        return [row for uri in self._files("runs", ".parquet") for row in _table(uri, columns).to_pylist()]

    def keys(self, run_id: str) -> set[Key]:
        """The metrics a run has; raises SettingsError when it is not here."""
        if run_id not in self._keys:
            self._keys[run_id] = {Key(**row) for row in _table(self.uri_of(run_id), Key._fields).to_pylist()}
        return self._keys[run_id]

    def item_values(self, run_id: str, keys: Collection[Key]) -> dict[Key, ItemValues]:
        """Some metrics of a run with what each item contributed; raises SettingsError when it is not here."""
        table = _table(self.uri_of(run_id), [name for name in SCHEMA.names if name != "settings"])
        own = zip(*(table[name].to_pylist() for name in Key._fields), strict=True)
        table = table.filter(pa.array([key in keys for key in own], pa.bool_())).combine_chunks()
        facts = table.drop_columns(["items", "rows"]).to_pylist()
        found = {}
        for row, items, rows in zip(facts, table["items"], table["rows"], strict=True):
            each = rows.values  # note: numbers stay in Arrow; as Python floats those of 200 labels would fill a memory
            counted = np.flatnonzero(each.is_valid().to_numpy(zero_copy_only=False))
            numbers = each.flatten().to_numpy(zero_copy_only=False)
            key = Key(*(row[name] for name in Key._fields))
            found[key] = ItemValues(row, items.values.to_pylist(), counted, numbers.reshape(len(counted), -1))
        return found

    def check_single(self, run_id: str) -> None:
        """Raises SettingsError for the run of a grid: its cells are settings tried out, no standard."""
        if not any(cell == "" for cell, _, _ in self.keys(run_id)):
            problem = f"{run_id} is the run of a grid, whose cells are settings tried out and no standard"
            raise SettingsError("run", problem, "choose a run without a grid")

    def ids(self) -> list[str]:
        """Run ids, oldest first."""
        return [_id_of(uri) for uri in self._files("runs", ".parquet")]

    def accepted(self) -> list[str]:
        """Run ids that stand as accepted, in the order they were accepted."""
        return self._standing("accept")

    def pins(self) -> list[str]:
        """Run ids that were pinned and are not rejected, in the order they were pinned."""
        return self._standing("pin")

    def pinned(self) -> str | None:
        """The pinned run: the last of `pins`, else the first one accepted."""
        return next(iter([*self.pins()[::-1], *self.accepted()]), None)

    def _standing(self, kind: str) -> list[str]:
        """Runs with an event of this kind that were not rejected since, by their last one."""
        standing: list[str] = []
        for event in map(_event, self._files("events", ".json")):
            if event["kind"] in (kind, "reject") and event["run_id"] in standing:
                standing.remove(event["run_id"])
            if event["kind"] == kind:
                standing.append(event["run_id"])
        return standing

    def uri_of(self, run_id: str) -> str:
        """The file of a run. Raises SettingsError when it is not here."""
        for uri in self._files("runs", ".parquet"):
            if _id_of(uri) == run_id:
                return uri
        ids = self.ids()
        remedy = f"choose one of {', '.join(ids[-8:])}" if ids else "add one first (mats evaluate --history)"
        problem = f"{run_id} is not a run of this history" + ("" if ids else ", which has none yet")
        raise SettingsError("run", problem, remedy)

    def _files(self, folder: str, ending: str) -> list[str]:
        place = storage.join(self.url, folder)
        with self._refused("read"):
            found = storage.list_files(place) if storage.is_dir(place) else []
            return sorted(info.uri for info in found if info.uri.endswith(ending))

    @contextmanager
    def _refused(self, what: str) -> Iterator[None]:
        """A folder that cannot be `read`, or `written to`, is a wrong setting."""
        try:
            yield
        except (OSError, storage.StorageError) as error:
            problem = f"{storage.public_uri(self.url)} cannot be {what} ({error})"
            raise SettingsError("history", problem, f"name a folder that can be {what}") from None


def series(rows: Sequence[Mapping[str, Any]], metric: str, run_ids: Sequence[str]) -> list[Point]:
    """Points of BENCHMARK/METRIC in the order of `run_ids`; runs without it are left out."""
    key = tuple(metric.rsplit("/", 1))
    own = (row for row in rows if (row["benchmark"], row["metric"]) == key)
    found = {row["run_id"]: Point(*(row[name] for name in Point._fields)) for row in own}
    return [found[run_id] for run_id in run_ids if run_id in found]


def _id_of(uri: str) -> str:
    """The run id in a file's name, which is the time without hyphens, a hyphen, and the id."""
    return uri.rsplit("/", 1)[-1].partition("-")[2].removesuffix(".parquet")


def _event(uri: str) -> dict[str, Any]:
    try:
        event = unsealed(json.loads(storage.read_bytes(uri)))
    except (ValueError, storage.StorageError):
        event = None
    if event is None or not {"kind", "run_id"} <= event.keys():
        problem = f"{storage.public_uri(uri)} is not an event (JSON with run_id and kind: {', '.join(EVENTS)})"
        raise SettingsError("history", problem, "move this file away")
    return event


def _table(uri: str, columns: Sequence[str]) -> pa.Table:
    try:
        return parquet.read(uri, columns)
    except storage.StorageError as error:
        problem = f"{storage.public_uri(uri)} is not a readable Parquet file ({error})"
        raise SettingsError("history", problem, "move this file away, or bring it back whole") from None
