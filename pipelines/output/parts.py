"""An OUTPUT folder: who may use it, which rows it holds already, how rows become durable.

The part files are the only record of what is done. The driver, who holds the lease, is the only writer: it keeps one
bit a row, drops a row that comes twice, and puts every part in place whole.

Ray Data's own checkpointing keeps a second record beside the data, written in two phases by tasks that may outlive
their driver. Killed at the wrong moment it loses rows or doubles them (tests/e2e/test_ray_checkpointing.py shows both),
and its filter waits for ever where no CPU is left for it.
"""

from __future__ import annotations

import io
import json
import platform
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import got_allowed

PACKAGES = (
    "numpy",
    "torch",
    "transformers",
    "ray",
    "pyarrow",
    "peft",
    "faiss-cpu",
    "soundfile",
    "av",
    "soxr",
)


def prepare_output(output: str) -> None:
    """Make sure OUTPUT can be written. Raises SettingsError."""
    shown = storage.public_uri(output)
    if not output.strip():
        raise got_allowed("output", output, "a folder (. is the one you are in)")
    try:
        if storage.exists(output) and not storage.is_dir(output):
            raise got_allowed("output", shown, "a folder (this is a file)")
        trial = storage.join(output, "_state", f"trial-{uuid.uuid4().hex[:8]}")
        storage.write_bytes(trial, b"")
        storage.remove_tree(trial)
    except (OSError, storage.StorageError) as error:
        raise got_allowed("output", shown, f"a folder that can be written ({error})") from None


def check_identity(output: str, identity: dict[str, Any], folder: str = "") -> bool:
    """Refuse an OUTPUT made with another model or with settings that change answers (SettingsError), and one that no
    run has begun, but with files in the `folder` where the results are to go.

    True where there was nothing yet: `identity` is now what OUTPUT is.
    """
    uri = storage.join(output, "_state", "identity.json")
    if not storage.exists(uri):
        place = storage.join(output, folder) if folder else output
        if folder and storage.is_dir(place) and next(storage.list_files(place), None) is not None:
            shown = storage.public_uri(output)
            raise got_allowed("output", shown, f"a folder of earlier results, or one without `{folder}` in it")
        storage.write_bytes(uri, json.dumps(identity, indent=1, sort_keys=True).encode())
        return True
    before = json.loads(storage.read_bytes(uri))
    names = sorted(set(before) | set(identity))
    different = [name for name in names if before.get(name) != identity.get(name)]
    if different:
        changes = "; ".join(f"{n} was {_show(before.get(n))}, is {_show(identity.get(n))}" for n in different)
        way = "choose another OUTPUT" + ("" if "job" in different else ", or --overwrite")
        shown = storage.public_uri(output)
        raise got_allowed("output", shown, f"the settings it was begun with ({changes}); {way}")
    return False


def forget_beginning(output: str) -> None:
    """Undo `check_identity` and the scan after it: what was wrong with the settings can be put right."""
    for name in ("identity.json", "work_list"):
        storage.remove_tree(storage.join(output, "_state", name))


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def versions() -> dict[str, str]:
    """Python and the packages that could change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class Done:
    """What OUTPUT holds: `mask` bool [total] by row_id, rows by error code, seconds of audio, names of parts."""

    mask: np.ndarray
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    parts: set[str] = field(default_factory=set)

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return int(self.mask.sum())


def read_done(folder: str, total: int, again: Collection[str] = ()) -> Done:
    """What the part files of `folder` hold, for the holder of the lease: what should not be there is taken out.

    That is a row that is there twice, since a writer who lost its lease while it wrote may leave its part late; and
    rows with an error code of `again`, which are to be done anew.
    """
    done = Done(np.zeros(total, bool))
    if not storage.is_dir(folder):
        return done
    for info in storage.list_files(folder):
        if info.uri.endswith(".parquet"):
            table = _read_part(info.uri)
            kept = first_times(table["row_id"].to_numpy(), done.mask)
            if again:
                kept &= ~pc.is_in(table["error_code"], pa.array(list(again), pa.string())).to_numpy()
            if not kept.all():
                table = table.filter(pa.array(kept))
                _keep_rows(info.uri, kept)
            if len(table):
                done.mask[table["row_id"].to_numpy()] = True
                done.seconds += pc.sum(table["decoded_s"]).as_py() or 0.0
                done.errors.update(count_errors(table["error_code"]))
                done.parts.add(info.path)
    return done


def _read_part(uri: str) -> pa.Table:
    """What tells how far a part goes. Raises SettingsError for a file that is none."""
    try:
        return pq.read_table(storage.open_binary(uri), columns=["row_id", "error_code", "decoded_s"])
    except pa.ArrowInvalid as error:
        first = str(error).splitlines()[0][:200]
        allowed = (
            f"a part of earlier results, which this file is not ({first}); move it away, and its rows are done anew"
        )
        raise got_allowed("output", storage.public_uri(uri), allowed) from None


def first_times(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of `ids` int64 [N] come for the first time and are not in `mask` yet: bool [N]."""
    new = np.zeros(len(ids), bool)
    new[np.unique(ids, return_index=True)[1]] = True
    return new & ~mask[ids]


def _keep_rows(uri: str, kept: np.ndarray) -> None:
    """Write a part anew with the rows that are kept; without any it is removed."""
    if not kept.any():
        storage.remove_tree(uri)
        return
    sink = io.BytesIO()
    table = pq.read_table(storage.open_binary(uri)).filter(pa.array(kept))
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes(uri, sink.getvalue())


def settled(folder: str, done: Done) -> Done:
    """`done`, read anew where the parts are not those this run knows of: another writer's came late, or one is gone."""
    listed = {info.path for info in storage.list_files(folder)} if storage.is_dir(folder) else set()
    return done if listed == done.parts else read_done(folder, len(done.mask))


def count_errors(codes: pa.ChunkedArray) -> dict[str, int]:
    """Rows by error code; null is no error."""
    return {item["values"]: item["counts"] for item in pc.value_counts(codes.drop_null()).to_pylist()}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is over, so that what is counted and what is written agree."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda got, _: came.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if came:
            signal.raise_signal(came[0])


class PartWriter:
    """Gathers rows and writes part files of `commit_rows`, or what there is every `commit_seconds`.

    `done` is brought up to date as rows come. `guard` is called before every file and may raise (lease lost).
    """

    def __init__(
        self,
        folder: str,
        run_id: str,
        done: Done,
        commit_rows: int,
        commit_seconds: float,
        guard: Callable[[], None],
    ) -> None:
        self.folder = folder
        self._run_id = run_id
        self._done = done
        self._commit_rows = commit_rows
        self._commit_seconds = commit_seconds
        self._guard = guard
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._since = time.monotonic()
        self.written_rows = 0
        self.parts = 0
        self.seconds = 0.0

    def add(self, table: pa.Table) -> pa.Table:
        """Take rows; returns those that were new. Every row_id is taken once, whatever Ray repeats."""
        with uninterrupted():
            return self._add(table)

    def _add(self, table: pa.Table) -> pa.Table:
        ids = table["row_id"].to_numpy()
        new = first_times(ids, self._done.mask)
        if not new.all():
            table = table.filter(pa.array(new))
        if len(table) == 0:
            return table
        self._done.mask[ids] = True
        self._waiting.append(table)
        self._rows += len(table)
        self._done.errors.update(count_errors(table["error_code"]))
        self._done.seconds += pc.sum(table["decoded_s"]).as_py() or 0.0
        while self._rows >= self._commit_rows:
            self._write(self._commit_rows)
        if self._rows and time.monotonic() - self._since >= self._commit_seconds:
            self._write(self._rows)
        return table

    @property
    def waiting_rows(self) -> int:
        """Rows that are taken and not durable yet."""
        return self._rows

    def flush(self) -> None:
        """Write what is left."""
        with uninterrupted():
            if self._rows:
                self._write(self._rows)

    def _write(self, rows: int) -> None:
        started = time.monotonic()
        table = pa.concat_tables(self._waiting).combine_chunks()
        part, rest = table.slice(0, rows), table.slice(rows)
        part = part.sort_by("row_id")
        self._waiting, self._rows = ([rest] if len(rest) else []), len(rest)
        sink = io.BytesIO()
        pq.write_table(part, sink, compression="zstd")
        name = f"part-{part['row_id'][0].as_py():012d}-{self._run_id}-{self.parts:05d}.parquet"
        self._guard()
        storage.write_bytes(storage.join(self.folder, name), sink.getvalue())
        self._done.parts.add(name)
        self.parts += 1
        self.written_rows += rows
        self._since = time.monotonic()
        self.seconds += self._since - started


def write_run(output: str, run: dict[str, Any]) -> None:
    """Put `_run.json` in place."""
    storage.write_bytes(storage.join(output, "_run.json"), json.dumps(run, indent=1, default=str).encode())


def read_run(output: str) -> dict[str, Any] | None:
    """The last `_run.json` of OUTPUT, or None."""
    uri = storage.join(output, "_run.json")
    if not storage.exists(uri):
        return None
    try:
        run = json.loads(storage.read_bytes(uri))
    except ValueError:
        return None
    return run if isinstance(run, dict) else None
