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


def read_done(folder: str, total: int, again: Collection[str] = ()) -> Done:
    """What the part files of `folder` hold, for the holder of the lease: what should not be there is taken out.

    That is a row that is there twice, since a writer who lost its lease while it wrote may leave its part late; and
    rows with an error code of `again`, which are to be done anew.
    """
    done = Done(np.zeros(total, bool))
    for info in parquet.files(folder):
        table = _read_part(info.uri)
        stays = first_occurrences(table["row_id"].to_numpy(), done.mask)
        if again:
            stays &= ~pc.is_in(table["error_code"], pa.array(list(again), pa.string())).to_numpy()
        if not stays.all():
            table = table.filter(pa.array(stays))
            _rewrite(info.uri, stays)
        if len(table):
            done.mask[table["row_id"].to_numpy()] = True
            done.seconds += pc.sum(table["decoded_s"]).as_py() or 0.0
            done.errors.update(count_errors(table["error_code"]))
            done.parts.add(info.path)
    return done


def _read_part(uri: str) -> pa.Table:
    """What tells how far a part goes. Raises SettingsError for a file that is none."""
    try:
        return parquet.read(uri, ["row_id", "error_code", "decoded_s"])
    except parquet.NotParquet as error:
        problem = f"{storage.public_uri(uri)} is no part of earlier results ({error.message})"
        raise SettingsError("output", problem, "move this file away, and its rows are done anew") from None


def first_occurrences(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of `ids` int64 [N] come for the first time and are not in `mask` yet: bool [N]."""
    new = np.zeros(len(ids), bool)
    new[np.unique(ids, return_index=True)[1]] = True
    return new & ~mask[ids]


def _rewrite(uri: str, stays: np.ndarray) -> None:
    """Write a part anew with the rows that stay, bool [rows]; without any it is removed."""
    if stays.any():
        parquet.write(uri, parquet.read(uri).filter(pa.array(stays)))
    else:
        storage.remove_tree(uri)


def reread_if_changed(folder: str, done: Done) -> Done:
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

    `done` is brought up to date as rows come. `check_lease` is called before every file and may raise (lease lost).
    """

    def __init__(
        self,
        folder: str,
        run_id: str,
        done: Done,
        commit_rows: int,
        commit_seconds: float,
        check_lease: Callable[[], None],
    ) -> None:
        self.folder = folder
        self._run_id = run_id
        self._done = done
        self._commit_rows = commit_rows
        self._commit_seconds = commit_seconds
        self._check_lease = check_lease
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
        new = first_occurrences(ids, self._done.mask)
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
        name = f"part-{part['row_id'][0].as_py():012d}-{self._run_id}-{self.parts:05d}.parquet"
        self._check_lease()
        parquet.write(storage.join(self.folder, name), part)
        self._done.parts.add(name)
        self.parts += 1
        self.written_rows += rows
        self._since = time.monotonic()
        self.seconds += self._since - started
