"""Part files: which rows an OUTPUT holds already, and how new rows become durable.

The part files that count (`data.generations`) are the only record of what is done. The driver, who holds the lease, is
the only writer: it keeps one bit a row, drops a row that comes twice, and puts every part in place whole.

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
from mats_core.storage.uris import Uri, uri_text
from pipelines.data import generations, parquet
from pipelines.output.folder import Output


@dataclass
class Done:
    """What OUTPUT holds: `mask` bool [total] by row_id, rows by error code, seconds of audio, names of parts; rows of
    sound that is not complete, and the seconds lost in them."""

    mask: np.ndarray
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    parts: set[str] = field(default_factory=set)
    incomplete: int = 0
    lost_s: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return int(self.mask.sum())

    def grow(self, total: int) -> None:
        """Make room for the rows that the work list got since."""
        self.mask = np.concatenate([self.mask, np.zeros(total - len(self.mask), bool)])

    def count(self, table: pa.Table) -> None:
        """Take in rows that are done."""
        self.mask[table["row_id"].to_numpy()] = True
        self.errors.update(count_errors(table["error_code"]))
        self.seconds += pc.sum(table["decoded_s"]).as_py() or 0.0
        if "complete" in table.schema.names:  # parts of an older version lack it
            self.incomplete += pc.sum(pc.invert(table["complete"])).as_py() or 0
            self.lost_s += pc.sum(table["lost_s"]).as_py() or 0.0


def read_done(out: Output, folder: str, total: int, again: Collection[str] = ()) -> Done:
    """What the part files of `folder` (a name below OUTPUT) hold, with what should not be there taken out.

    That is a row that is there twice, and rows with an error code of `again`, which are to be done anew: a part that
    has some is written again without them, under a name of this run, and then counts no more. Raises SettingsError for
    a file that is no part, and for rows that no work list of `total` rows has.
    """
    done = Done(np.zeros(total, bool))
    gone: dict[str, str] = {}
    listed = generations.files(out.join(folder))
    number = len(listed)
    for info in listed:
        shown = storage.public_uri(info.uri)
        try:
            table = parquet.read(info.uri, ["row_id", "error_code", "decoded_s"], newer=("complete", "lost_s"))
        except parquet.NotParquet as error:
            problem = f"{shown} is no part of earlier results ({error.message})"
            raise SettingsError("output", problem, "move this file away, and its rows are done anew") from None
        if len(table) and pc.max(table["row_id"]).as_py() >= total:
            problem = f"{shown} has answers to rows beyond the {total} of the work list, of which a file is lost"
            raise SettingsError("output", problem, "bring _state/work_list back whole, or begin anew with --overwrite")
        stays = first_occurrences(table["row_id"].to_numpy(), done.mask)
        if again:
            stays &= ~pc.is_in(table["error_code"], pa.array(list(again), pa.string())).to_numpy()
        name = f"{folder}/{info.path}"
        if not stays.all():
            gone[name] = info.uri
            table = table.filter(pa.array(stays))
            if len(table):
                number += 1
                name = f"{folder}/{part_name(table['row_id'][0].as_py(), out.run_id, number)}"
                out.put_table(name, parquet.read(info.uri).filter(pa.array(stays)))
        if len(table):
            done.count(table)
            done.parts.add(name.removeprefix(f"{folder}/"))
    out.drop(gone)
    return done


def first_occurrences(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which of `ids` int64 [N] come for the first time and are not in `mask` yet: bool [N]."""
    new = np.zeros(len(ids), bool)
    new[np.unique(ids, return_index=True)[1]] = True
    return new & ~mask[ids]


def reread_if_changed(out: Output, folder: str, done: Done) -> Done:
    """`done`, read anew where the parts that count are not those this run knows of: one was removed by hand, say."""
    listed = {info.path for info in generations.files(out.join(folder))}
    return done if listed == done.parts else read_done(out, folder, len(done.mask))


def part_name(first_row: int, run_id: str, number: int) -> str:
    """Name of a part file: by its first row, and by the run that writes it (`data.generations`)."""
    return f"part-{first_row:012d}-{run_id}-{number:05d}.parquet"


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

    put: writes a table as a file of that name in OUTPUT, and may raise (lease lost). `done` is brought up to date as
    rows come.
    waiting_rows: taken and not durable yet. parts, seconds: files written, and the time that took.
    """

    folder: str
    run_id: str
    done: Done
    commit_rows: int
    commit_seconds: float
    put: Callable[[str, pa.Table], None]
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
        name = part_name(part["row_id"][0].as_py(), self.run_id, self.parts)
        self.put(f"{self.folder}/{name}", part)
        self.done.parts.add(name)
        self.parts += 1
        self._since = time.monotonic()
        self.seconds += self._since - started


def first_error(output: Uri) -> str:
    """The file and the message of the first row of an OUTPUT that has an error code; empty where there is none."""
    for folder in ("answers", "embeddings"):
        for info in generations.files(storage.join(uri_text(output), folder)):
            for batch in parquet.batches(info.uri, 4096, ["uri", "error_code", "error_message"]):
                for row in batch.to_pylist():
                    if row["error_code"]:
                        return f"{row['uri']}: {row['error_code']}: {row['error_message']}"
    return ""
