"""The history of evaluations: one Parquet file a run at a URL, which runs are accepted, and the gate.

    HISTORY/runs/<time>-<run>.parquet      a row a metric of a benchmark, with what each item contributed
    HISTORY/events/<time>-<kind>-<run>.json    accept, reject, pin

Files are only ever added, so that any store will do and nobody waits for a lock. A run is compared with the last
*accepted* one, which a bad night never becomes, and with the *pinned* one, which moves by hand alone: many falls that
are each within the tolerance add up there. Until one is pinned, the first accepted run is the pin.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.scoring import paired_bootstrap

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


@dataclass(frozen=True)
class Change:
    """One metric of one benchmark in two runs, item by item. low, high: 95 % interval of new − old."""

    benchmark: str
    metric: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    items: int
    against: str
    fell: bool

    def __str__(self) -> str:
        return (
            f"{self.benchmark} {self.metric}: {self.new:.4f}, was {self.old:.4f} in {self.against} "
            f"({self.difference:+.4f}, 95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.items} items)"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate says. against: roles (accepted, pinned) → run id; skipped: what could not be compared, and why."""

    changes: list[Change]
    against: dict[str, str]
    skipped: list[str]

    @property
    def falls(self) -> list[Change]:
        return [change for change in self.changes if change.fell]

    @property
    def open(self) -> bool:
        return not self.falls


class History:
    """Runs at a URL. Raises SettingsError where it cannot be read or written."""

    def __init__(self, url: str) -> None:
        self.url = url

    def add(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Write one run's rows (columns of SCHEMA) as one file; again for the same run replaces it. Returns its URI."""
        first = rows[0]
        stamp = first["started"].replace(":", "").replace("-", "")
        uri = storage.join(self.url, "runs", f"{stamp}-{first['run_id']}.parquet")
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), sink, compression="zstd")
        self._put(uri, sink.getvalue())
        return uri

    def mark(self, kind: str, run_id: str, by: str = "hand") -> None:
        """Accept, reject or pin a run. Raises SettingsError for one that is not here."""
        if kind not in EVENTS:
            raise SettingsError("event", kind, ", ".join(EVENTS))
        self.check_run(run_id)
        now = time.time_ns()
        event = {"kind": kind, "run_id": run_id, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "by": by}
        uri = storage.join(self.url, "events", f"{now:020d}-{kind}-{run_id}.json")
        self._put(uri, json.dumps(event, indent=1).encode())

    def runs(self) -> list[dict[str, Any]]:
        """All rows of all runs, oldest run first, without what each item contributed."""
        columns = [name for name in SCHEMA.names if name not in _HEAVY]
        return [row for uri in self._files("runs", ".parquet") for row in _table(uri, columns).to_pylist()]

    def run(self, run_id: str) -> list[dict[str, Any]]:
        """One run's rows, all columns; raises SettingsError when it is not here."""
        for uri in self._files("runs", ".parquet"):
            if _id_of(uri) == run_id:
                rows: list[dict[str, Any]] = _table(uri, None).to_pylist()
                return rows
        raise SettingsError("run", run_id, self._known())

    def check_run(self, run_id: str) -> None:
        """Raises SettingsError when a run is not here."""
        if run_id not in self.ids():
            raise SettingsError("run", run_id, self._known())

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

    def pinned(self) -> str | None:
        """The pinned run: the last that was pinned and is not rejected, else the first one accepted."""
        pins: list[str] = []
        for event in self._events():
            if event["kind"] == "pin":
                pins.append(event["run_id"])
            elif event["kind"] == "reject":
                pins = [run_id for run_id in pins if run_id != event["run_id"]]
        return pins[-1] if pins else next(iter(self.accepted()), None)

    def to_compare(self, against: str, own: str = "") -> dict[str, str]:
        """Roles → run ids to compare with: accepted (or the run named) and pinned, each run once, never `own`."""
        if against == "accepted":
            accepted = [run_id for run_id in self.accepted() if run_id != own]
            found = {"accepted": accepted[-1]} if accepted else {}
        else:
            self.check_run(against)
            found = {"run": against}
        pinned = self.pinned()
        if pinned is not None and pinned != own and pinned not in found.values():
            found["pinned"] = pinned
        return found

    def gate(self, rows: Sequence[Mapping[str, Any]], against: str, tolerance: float, seed: int = 0) -> Verdict:
        """Compare a run's rows with the accepted and the pinned run."""
        changes: list[Change] = []
        skipped: list[str] = []
        roles = self.to_compare(against, rows[0]["run_id"])
        for role, run_id in roles.items():
            found, missing = compare_runs(self.run(run_id), rows, f"{role} run {run_id}", tolerance, seed)
            changes += found
            skipped += missing
        return Verdict(changes, roles, skipped)

    def _events(self) -> list[dict[str, Any]]:
        return [json.loads(storage.read_bytes(uri)) for uri in self._files("events", ".json")]

    def _files(self, folder: str, ending: str) -> list[str]:
        try:
            place = storage.join(self.url, folder)
            if not storage.is_dir(place):
                return []
            return sorted(info.uri for info in storage.list_files(place) if info.uri.endswith(ending))
        except storage.StorageError as error:
            raise SettingsError("history", storage.public_uri(self.url), f"a folder to read ({error})") from None

    def _put(self, uri: str, data: bytes) -> None:
        try:
            storage.write_bytes(uri, data)
        except (OSError, storage.StorageError) as error:
            raise SettingsError("history", storage.public_uri(self.url), f"a folder to write to ({error})") from None

    def _known(self) -> str:
        ids = self.ids()
        return f"a run of this history: {', '.join(ids[-8:])}" if ids else "a run of this history, which has none yet"


def compare_runs(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], against: str, tolerance: float, seed: int = 0
) -> tuple[list[Change], list[str]]:
    """Every metric that both runs have, on the items that both have; and what could not be compared, and why.

    A metric *fell* when it is worse by more than `tolerance`, and the 95 % interval of the difference (paired
    bootstrap over items) is all on the worse side, so that neither noise nor a trifle closes a gate.
    """
    before = {_key(row): row for row in old}
    after = {_key(row): row for row in new}
    changes, skipped = [], []
    for key, row in after.items():
        past = before.get(key)
        if past is None:
            continue
        name = f"{key[1]} {key[2]} against the {against}"
        if (past["kind"], past["statistic"], past["labels"]) != (row["kind"], row["statistic"], row["labels"]):
            skipped.append(f"{name}: other labels or another way of counting")
            continue
        old_rows = dict(zip(past["items"], past["rows"], strict=True))
        new_rows = dict(zip(row["items"], row["rows"], strict=True))
        items = [item for item in old_rows if item in new_rows]
        pairs = [(old_rows[i], new_rows[i]) for i in items]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not pairs:
            skipped.append(f"{name}: no item in common")
            continue
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        difference, low, high, _ = paired_bootstrap(first, second, seed, row["statistic"])
        worse = (-difference, -high) if row["higher_is_better"] else (difference, low)
        fell = worse[0] > tolerance and worse[1] > 0
        changes.append(
            Change(key[1], key[2], past["value"], row["value"], difference, low, high, len(pairs), against, fell)
        )
    asked = {(key[0], key[1]) for key in after}
    for key in before:
        if key not in after:
            gone = key[:2] not in asked
            why = "not evaluated this time" if gone else "could not be computed this time"
            skipped.append(f"{key[1]} {key[2]} against the {against}: {why}")
    return changes, skipped


def _id_of(uri: str) -> str:
    """The run id in a file's name, which is the time without hyphens, a hyphen, and the id."""
    return uri.rsplit("/", 1)[-1].partition("-")[2].removesuffix(".parquet")


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["cell"], row["benchmark"], row["metric"]


def _table(uri: str, columns: Iterable[str] | None) -> pa.Table:
    try:
        return pq.read_table(storage.open_binary(uri), columns=list(columns) if columns is not None else None)
    except (pa.ArrowInvalid, OSError, storage.StorageError) as error:
        first = str(error).splitlines()[0]
        raise SettingsError("history", storage.public_uri(uri), f"a readable Parquet file ({first})") from None
