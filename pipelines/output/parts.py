"""Part files: which rows an OUTPUT holds already, and how new rows become durable.

The part files are the only record of what is done. The driver, who holds the lease, is the only writer: it keeps one
bit a row, drops a row that comes twice, and puts every part in place whole.

Ray Data's own checkpointing keeps a second record beside the data, written in two phases by tasks that may outlive
their driver. Killed at the wrong moment it loses rows or doubles them (tests/e2e/test_ray_checkpointing.py shows both),
and its filter waits for ever where no CPU is left for it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import parquet


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

    def count(self, table: pa.Table) -> None:
        """Take in rows that are done."""
        self.mask[table["row_id"].to_numpy()] = True
        self.errors.update(count_errors(table["error_code"]))
        self.seconds += pc.sum(table["decoded_s"]).as_py() or 0.0


def read_done(folder: str, total: int, again: Collection[str] = ()) -> Done:
    """What the part files of `folder` hold, for the holder of the lease: what should not be there is taken out.

    That is a row that is there twice, since a writer who lost its lease while it wrote may leave its part late; and
    rows with an error code of `again`, which are to be done anew.
    """
    done = Done(np.zeros(total, bool))
    for info in parquet.files(folder):
        try:
            table = parquet.read(info.uri, ["row_id", "error_code", "decoded_s"])
        except parquet.NotParquet as error:
            problem = f"{storage.public_uri(info.uri)} is no part of earlier results ({error.message})"
            raise SettingsError("output", problem, "move this file away, and its rows are done anew") from None
        stays = first_occurrences(table["row_id"].to_numpy(), done.mask)
        if again:
            stays &= ~pc.is_in(table["error_code"], pa.array(list(again), pa.string())).to_numpy()
        if not stays.any():
            if len(stays):
                storage.remove_tree(info.uri)
            continue
        if not stays.all():
            table = table.filter(pa.array(stays))
            parquet.write(info.uri, parquet.read(info.uri).filter(pa.array(stays)))
        done.count(table)
        done.parts.add(info.path)
    return done


def first_occurrences(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of `ids` int64 [N] come for the first time and are not in `mask` yet: bool [N]."""
    new = np.zeros(len(ids), bool)
    new[np.unique(ids, return_index=True)[1]] = True
    return new & ~mask[ids]


def reread_if_changed(folder: str, done: Done) -> Done:
    """`done`, read anew where the parts are not those this run knows of: another writer's came late, or one is gone."""
    listed = {info.path for info in storage.list_files(folder)} if storage.is_dir(folder) else set()
    return done if listed == done.parts else read_done(folder, len(done.mask))


def count_errors(codes: pa.ChunkedArray) -> dict[str, int]:
    """Rows by error code; null is no error."""
    return {item["values"]: item["counts"] for item in pc.value_counts(codes.drop_null()).to_pylist()}


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP wait until the block is over, so that what is counted and what is written agree.

    Yields the numbers of those that have come; one that is taken out of the list does not come afterwards.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda got, _: came.append(got))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if came:
            signal.raise_signal(came[0])


@dataclass
class PartWriter:
    """Gathers rows and writes part files of `commit_rows`, or what there is every `commit_seconds`.

    `done` is brought up to date as rows come. `check_lease` is called before every file and may raise (lease lost).
    waiting_rows: taken and not durable yet. parts, seconds: files written, and the time that took.
    """

    folder: str
    run_id: str
    done: Done
    commit_rows: int
    commit_seconds: float
    check_lease: Callable[[], None]
    waiting_rows: int = 0
    parts: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._waiting: list[pa.Table] = []
        self._since = time.monotonic()

    @uninterrupted()
    def add(self, table: pa.Table) -> pa.Table:
        """Take rows; returns those that were new. Every row_id is taken once, whatever Ray repeats."""
        new = first_occurrences(table["row_id"].to_numpy(), self.done.mask)
        if not new.all():
            table = table.filter(pa.array(new))
        if len(table) == 0:
            return table
        self.done.count(table)
        self._waiting.append(table)
        self.waiting_rows += len(table)
        while self.waiting_rows >= self.commit_rows:
            self._write(self.commit_rows)
        if self.waiting_rows and time.monotonic() - self._since >= self.commit_seconds:
            self._write(self.waiting_rows)
        return table

    @uninterrupted()
    def flush(self) -> None:
        """Write what is left."""
        if self.waiting_rows:
            self._write(self.waiting_rows)

    def _write(self, rows: int) -> None:
        started = time.monotonic()
        table = pa.concat_tables(self._waiting).combine_chunks()
        part, rest = table.slice(0, rows).sort_by("row_id"), table.slice(rows)
        self._waiting, self.waiting_rows = ([rest] if len(rest) else []), len(rest)
        name = f"part-{part['row_id'][0].as_py():012d}-{self.run_id}-{self.parts:05d}.parquet"
        self.check_lease()
        parquet.write(storage.join(self.folder, name), part)
        self.done.parts.add(name)
        self.parts += 1
        self._since = time.monotonic()
        self.seconds += self._since - started
