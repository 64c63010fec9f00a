"""A stage's actor in a process of its own: what ends that process costs one row, not the run.

    tables ──IsolatedStage──▶ pipe ──▶ serve ──▶ the stage's actor ──▶ tables

A request may end the process that answers it: an LLM's own code, a fault of a library or a driver, too little memory.
Ray would give the whole table to the next actor, and then give up the run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from mats_core.child import how_it_ended, module_paths, receive, send, start_child
from mats_core.errors import first_line
from mats_core.packages import ROOT
from pipelines.cluster.stages import Stage, StageContext

CHILD_PROGRAM = """
import gc, json, sys
gc.set_threshold(100_000)
descriptor, root, paths = json.loads(sys.argv[1])
sys.path.insert(0, root)
import mats_core.packages
sys.path[:] = paths
mats_core.packages.import_own()
from pipelines.cluster.isolation import serve
serve(descriptor)
"""
KEEPS_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Variables by which glibc keeps the memory of one tensor for the next, for a model on a CPU: a quarter of its time
goes into pages that are given back and asked for again. What the user set counts more."""
FAILED_STARTS = 3
"""So many processes in a row that end before their actor is made end the run."""
MOST_DEATHS = 16
"""So many that end in a row, with nothing answered in between, end the run: the fault is not that of single rows."""


class ProcessEnded(RuntimeError):
    """The process ended; the message says how."""


class IsolatedStage:
    """The actor of a stage whose own actor lives in a child process; made anew when a table ends it.

    As many threads as the stage has `in_flight` may call it at once. Of the tables that were in the process when it
    ended each is tried once more, alone: another may have ended it, or something else. If one does so again its rows
    are tried one by one, and one that ends the process alone gets what the actor's `refused` makes of it.
    """

    def __init__(self, context: StageContext, stage: Stage) -> None:
        self._context, self._stage = replace(context, find_uris=None), stage  # note: what has secrets stays here
        self._lock, self._entering = threading.Lock(), threading.Lock()
        self._places = threading.Semaphore(stage.in_flight)
        self._deaths = self._failed_starts = 0
        self._process = _StageProcess(self._context, self._stage)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """What the actor makes of a table. Raises what the actor raises, and RuntimeError where process after process
        ends."""
        yield from self._made_of(rows)

    def _made_of(self, rows: pa.Table) -> list[pa.Table]:
        with self._beside(self._stage.in_flight - 1), contextlib.suppress(ProcessEnded):
            return self._run("run", rows)
        with self._beside(0):
            try:
                return self._run("run", rows)
            except ProcessEnded as ended:
                return self._refused(rows, ended) if len(rows) == 1 else self._one_by_one(rows)

    def _one_by_one(self, rows: pa.Table) -> list[pa.Table]:
        found: list[pa.Table] = []
        for at in range(len(rows)):
            row = rows.slice(at, 1)
            try:
                found += self._run("run", row)
            except ProcessEnded as ended:
                found += self._refused(row, ended)
        return found

    def _refused(self, row: pa.Table, ended: ProcessEnded) -> list[pa.Table]:
        while True:
            with contextlib.suppress(ProcessEnded):
                return self._run("refused", row, f"it ended the model's process ({ended})")

    @contextlib.contextmanager
    def _beside(self, others: int) -> Iterator[None]:
        """In the process together with at most so many others."""
        places = self._stage.in_flight - others
        with self._entering:
            for _ in range(places):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(places)

    def _run(self, what: str, rows: pa.Table, *more: str) -> list[pa.Table]:
        """What the actor makes of rows, in a new process where there is none; raises ProcessEnded where it ends."""
        with self._lock:
            if self._process.ended:
                self._replace()
            asked = self._process.submit(what, rows, *more)
        found = asked.result()
        self._failed_starts = 0
        self._deaths *= what != "run"
        return found

    def _replace(self) -> None:
        self._deaths += 1
        self._failed_starts += not self._process.was_ready
        if self._failed_starts >= FAILED_STARTS:
            raise RuntimeError(f"the model's process does not start ({self._process.how})")
        if self._deaths >= MOST_DEATHS:
            problem = f"the model's process ended {self._deaths} times in a row"
            raise RuntimeError(f"{problem}, and answered nothing in between ({self._process.how})")
        self._process = _StageProcess(self._context, self._stage)


class _StageProcess:
    """A process that holds an actor; tables may be given to it while it works on others."""

    def __init__(self, context: StageContext, stage: Stage) -> None:
        self.ended, self.was_ready, self.how = False, False, ""
        self._numbers = itertools.count()
        self._asked: dict[int, Future[list[pa.Table]]] = {}
        self._lock = threading.Lock()
        self._errors = None if os.environ.get("MATS_DEBUG") else tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**(KEEPS_MEMORY if context.threads else {}), **os.environ}
        self._process, self._connection = start_child(
            CHILD_PROGRAM, [str(ROOT), module_paths()], environment, self._errors
        )
        with contextlib.suppress(OSError):  # it shows where answers are received
            self._connection.send_bytes(pickle.dumps((context, stage)))
        threading.Thread(target=self._receive, daemon=True).start()

    def submit(self, what: str, rows: pa.Table, *more: Any) -> Future[list[pa.Table]]:
        """Have the actor work on rows (what: `run`, or a method of it); ProcessEnded is raised where it ended."""
        asked: Future[list[pa.Table]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._asked[number] = asked
            if self.ended:
                asked.set_exception(ProcessEnded(self.how))
            else:
                with contextlib.suppress(OSError):
                    send(self._connection, pickle.dumps((number, what, more)), _packed(rows))
        return asked

    def close(self) -> None:
        """End it, whatever it does: it keeps nothing that would be lost."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, found = pickle.loads(self._connection.recv_bytes())
                self.was_ready = True
                if number is None:
                    continue
                asked = self._asked.pop(number)
                if isinstance(found, Exception):
                    asked.set_exception(found)
                else:
                    asked.set_result([_unpacked(each) for each in found])
        self._process.kill()
        with self._lock:
            self.ended, self.how = True, self._how_it_ended()
        for asked in self._asked.values():
            asked.set_exception(ProcessEnded(self.how))

    def _how_it_ended(self) -> str:
        how = how_it_ended(self._process)
        if self._errors is not None and not self.was_ready:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            how += f" ({said[-1][:300]})" if said else ""
        return how


def _packed(table: pa.Table) -> pa.Buffer:
    """A table as bytes; unlike a pickle they hold no more than its own rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _unpacked(packed: Any) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(packed)).read_all()


def serve(descriptor: int) -> None:
    """The child: makes the actor, and has it work on tables, some at once, until its parent is gone."""
    connection = Connection(descriptor)
    context, stage = pickle.loads(connection.recv_bytes())
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    actor = stage.make(context)
    sending = threading.Lock()
    connection.send_bytes(pickle.dumps((None, "ready")))

    def work() -> None:
        while True:
            number, what, more, rows = asked.get()
            try:
                found = (actor if what == "run" else getattr(actor, what))(_unpacked(rows), *more)
                tables = [found] if isinstance(found, pa.Table) else list(found)
                answer: Any = [_packed(table) for table in tables]
            except Exception as error:
                answer = _sendable(error)
            with sending:
                connection.send_bytes(pickle.dumps((number, answer)))

    for _ in range(stage.in_flight - 1):
        threading.Thread(target=work, daemon=True).start()
    work()


def _listen(connection: Connection, asked: queue.SimpleQueue[Any]) -> None:
    """Take in what the parent sends, and end this process with it, in whatever it is at: nobody waits for that."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            header, rows = receive(connection)
            asked.put((*pickle.loads(header), rows))
    os._exit(0)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {first_line(error, 500)}")
    return error
