"""Decoding apart from the model: child processes with limits on memory and time, made anew when a file ends one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mats_core.audio.decode import Decoded, DecodeLimits
from mats_core.audio.file import AudioError, AudioInfo
from mats_core.audio.levels import Levels
from mats_core.child import how_it_ended, module_paths, receive, start_child
from mats_core.storage import Listed, StorageError, open_binary
from mats_core.storage.uris import local_path, scheme

_TRIES = 2
_START_S = 120.0
_Answer: TypeAlias = tuple[dict[str, Any], np.ndarray]  # what a child says, and the bytes of its samples, uint8
_NOTHING = np.empty(0, np.uint8)
_JOBS_A_CHILD = 2  # one it works on, and one it finds when it is done
CHILD_PROGRAM = """
import json, sys, types
descriptor, package, paths, limits = json.loads(sys.argv[1])
sys.path[:] = paths
# note: in place of mats_core/__init__, so that nothing a user of the package needs (torch) is loaded
sys.modules["mats_core"] = types.ModuleType("mats_core")
sys.modules["mats_core"].__path__ = [package]
from mats_core.audio.sandbox_process import serve
serve(descriptor, limits)
"""


@dataclass(frozen=True)
class DecodeRequest:
    """A stretch of a file; `duration_s=None` reads to its end. `size` and `version`: what a listing said of it, so that
    another file in its place is told (`storage.open_binary`). `channel`: the only one that is heard, from 0; None: the
    mean of all."""

    uri: str
    start_s: float = 0.0
    duration_s: float | None = None
    size: int = 0
    version: str = ""
    channel: int | None = None


@dataclass
class _Job:
    place: int  # in the caller's list
    asked: dict[str, Any]
    allowed_s: float
    tries: int = 0


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    connection: Connection
    since: float  # time.monotonic() when it began the job it is at; before it is ready, when it was started
    environment: dict[str, str]  # it was started with
    ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)


class IsolatedDecoder:
    """Decodes and probes files in `workers` child processes. Usable in a Ray actor, a notebook, several
    threads.

    Whatever a file does to its decoder (crash, memory, endless work), it costs one AudioError and a new
    child. A file that ends its process is tried twice. Children start on first use, load no torch and no
    Ray, and end with `close`.
    """

    def __init__(self, workers: int = 1, sample_rate: int = 44100, limits: DecodeLimits | None = None) -> None:
        if workers < 1 or sample_rate < 1:
            raise ValueError(f"workers and sample_rate must be positive, got {workers} and {sample_rate}")
        self.workers = workers
        self.sample_rate = sample_rate
        self.limits = limits or DecodeLimits()
        self.cpu_s = 0.0  # what the children have spent on requests so far
        self._rows: dict[str, Any] = {}  # of Parquet files, by URI, as files that the children read
        self._forget()
        _all.add(self)

    def _forget(self) -> None:
        """Begin without children. Those of a process that forked are not the fork's, nor is a lock of its threads."""
        for child in getattr(self, "_children", ()):
            child.connection.close()  # else a child would not hear that its parent has ended
        self._children: list[_Child] = []
        self._failed_starts = 0
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.workers, self.sample_rate, self.limits)

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self, suppress: Any = contextlib.suppress) -> None:  # note: at a process's end, modules are gone
        with suppress(Exception):
            self.close()

    def start(self) -> None:
        """Start the children now, so that the first call need not wait for them."""
        with self._lock:
            while len(self._children) < self.workers:
                self._start_child()

    def close(self) -> None:
        """End the children. The decoder can be used again; it starts new ones."""
        with self._lock:
            for child in self._children:
                self._end(child)
            self._children = []
            self._forget_rows(keep=0)

    def process_ids(self) -> list[int]:
        """The process ids of the children that are there."""
        return [child.process.pid for child in self._children]

    def decode_many(
        self, requests: Sequence[DecodeRequest], sample_rate: int | None = None
    ) -> list[Decoded | AudioError]:
        """The stretches asked for, in order: int16 mono at `sample_rate` (None: the decoder's own), or why not. Raises
        only when no child starts."""
        rate = sample_rate or self.sample_rate
        answers = self._run([{"op": "decode", "rate": rate, **asdict(each)} for each in requests])
        return [_error(header) or _decoded(header, raw, rate) for header, raw in answers]

    def probe_many(self, uris: Sequence[str]) -> list[AudioInfo | AudioError]:
        """What the headers say, in order, or why they say nothing."""
        answers = self._run([{"op": "probe", "uri": uri} for uri in uris])
        return [_error(header) or AudioInfo(**header["info"]) for header, _ in answers]

    def _run(self, asked: list[dict[str, Any]]) -> list[_Answer]:
        with self._lock:
            waiting = deque(
                _Job(place, each, self.limits.for_uri(each["uri"]).deadline_s) for place, each in enumerate(asked)
            )
            answers: dict[int, _Answer] = {}
            environment = dict(os.environ)  # of a store it may hold the credentials
            if any(local_path(each["uri"]) is None for each in asked) and any(
                child.environment != environment for child in self._children
            ):
                self.close()
            try:
                while len(answers) < len(asked):
                    while len(self._children) < min(self.workers, len(asked) - len(answers)):
                        self._start_child()
                    self._send_jobs(waiting, answers)
                    if len(answers) < len(asked):
                        self._receive_answers(waiting, answers)
            except BaseException:  # an interrupt, or no child starts: leave no child with half a conversation
                self.close()
                raise
            return [answers[place] for place in range(len(asked))]

    def _start_child(self) -> None:
        package = str(Path(__file__).parents[1])
        limits = self.limits.model_copy(update={"deadline_s": self.limits.deadline_s * 0.95})
        environment = dict(os.environ)
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # note: every malloc arena reserves 64 MB of address space, which the limit counts
        given = {**environment, **single, "MALLOC_ARENA_MAX": "2"}
        process, ours = start_child(CHILD_PROGRAM, [package, module_paths(), limits.model_dump()], given)
        self._children.append(_Child(process, ours, time.monotonic(), environment))

    def _send_jobs(self, waiting: deque[_Job], answers: dict[int, _Answer]) -> None:
        for depth in range(1, _JOBS_A_CHILD + 1):
            for child in list(self._children):
                while waiting and len(child.jobs) < depth:
                    job = waiting.popleft()
                    try:
                        message = json.dumps(self._readable(job.asked)).encode()
                    except StorageError as error:
                        answers[job.place] = {"code": error.code, "message": error.message}, _NOTHING
                        continue
                    if not child.jobs and child.ready:
                        child.since = time.monotonic()
                    child.jobs.append(job)
                    # a child that is gone shows in _receive_answers, as the end of its connection
                    with contextlib.suppress(OSError):
                        child.connection.send_bytes(message)

    def _readable(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The request as a child can do it. A row of a Parquet file becomes a file of its own: rows are read one after
        the other, once, which several children could not do. Raises StorageError."""
        uri = asked["uri"]
        if not scheme(uri).startswith("parquet+"):
            return asked
        if uri not in self._rows:
            self._forget_rows(keep=1)
            copy = tempfile.NamedTemporaryFile(prefix="mats-row-")  # noqa: SIM115 (closed where it is forgotten)
            listed = Listed(0, asked.get("version") or "")
            with open_binary(uri, self.limits.max_bytes, listed=listed) as row:
                shutil.copyfileobj(row, copy)
            copy.flush()
            self._rows[uri] = copy
        return {**asked, "uri": self._rows[uri].name, "size": 0, "version": "", "name": uri}

    def _forget_rows(self, keep: int) -> None:
        """Remove the files of rows that no child is at, but the last: a long sound is asked for in many stretches."""
        needed = {job.asked["uri"] for child in self._children for job in child.jobs}
        for uri in list(self._rows)[: len(self._rows) - keep]:
            if uri not in needed:
                self._rows.pop(uri).close()

    def _receive_answers(self, waiting: deque[_Job], answers: dict[int, _Answer]) -> None:
        busy = {child.connection: child for child in self._children if child.jobs or not child.ready}
        until = min(child.since + self._allowed(child) for child in busy.values())
        answered = wait(list(busy), max(0.0, until - time.monotonic()))
        for connection in answered:
            child = busy[connection]  # type: ignore[index]
            try:
                header, raw = _parse(*receive(child.connection))
            except (EOFError, OSError, ValueError, MemoryError):
                self._child_ended(child, waiting, answers, overdue=False)
                continue
            child.since = time.monotonic()
            if header.get("ready"):
                child.ready = True
                self._failed_starts = 0
                continue
            job = child.jobs.popleft()
            self.cpu_s += float(header.get("cpu_s", 0.0))
            if header.get("code") == "memory":
                needed = f"needs more than {self.limits.memory_bytes >> 20} MiB to decode"
                self._try_again(job, waiting, answers, needed)
            else:
                answers[job.place] = header, raw
            if header.get("retire"):
                self._replace(child, waiting)
        now = time.monotonic()
        for connection, child in busy.items():
            if connection not in answered and now >= child.since + self._allowed(child):
                self._child_ended(child, waiting, answers, overdue=True)

    def _allowed(self, child: _Child) -> float:
        return child.jobs[0].allowed_s if child.ready and child.jobs else _START_S

    def _child_ended(self, child: _Child, waiting: deque[_Job], answers: dict[int, _Answer], overdue: bool) -> None:
        """A child died, or is overdue and is ended: the job it was at gets a second try or an error, the others it held
        go to another child."""
        if child.ready and child.jobs:
            job = child.jobs.popleft()
            if overdue:
                reason = f"decoding took longer than {job.allowed_s:g} s and was stopped"
                answers[job.place] = {"code": "timeout", "message": reason}, _NOTHING
            else:
                self._try_again(job, waiting, answers, f"its decoder process ended with {how_it_ended(child.process)}")
        elif not child.ready:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise RuntimeError("the decoder process does not start; its own error is in the log above")
        self._replace(child, waiting)

    def _try_again(self, job: _Job, waiting: deque[_Job], answers: dict[int, _Answer], reason: str) -> None:
        job.tries += 1
        if job.tries < _TRIES:
            waiting.appendleft(job)
        else:
            answers[job.place] = {"code": "decode_failed", "message": f"{reason}, twice"}, _NOTHING

    def _replace(self, child: _Child, waiting: deque[_Job]) -> None:
        self._end(child)
        self._children.remove(child)
        waiting.extendleft(reversed(child.jobs))

    def _end(self, child: _Child) -> None:
        child.connection.close()
        child.process.kill()  # it keeps nothing that would be lost
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(5)


_all: weakref.WeakSet[IsolatedDecoder] = weakref.WeakSet()


def _forget_all() -> None:
    for decoder in list(_all):
        decoder._forget()


os.register_at_fork(after_in_child=_forget_all)


@functools.cache
def warm_decoder() -> IsolatedDecoder:
    """The decoder of this process for single files: one child, kept for the next file, that ends with the process."""
    decoder = IsolatedDecoder()
    atexit.register(decoder.close)
    return decoder


def _decoded(header: dict[str, Any], raw: np.ndarray, rate: int) -> Decoded:
    samples = raw.view(np.int16)
    told = {name: header[name] for name in ("complete", "lost_s", "end_s", "remark")}
    return Decoded(samples, len(samples) / rate, **told, levels=Levels(**header["levels"]))


def _parse(told: bytes, raw: np.ndarray) -> _Answer:
    header = json.loads(told)
    if not isinstance(header, dict):
        raise ValueError("not an answer")
    return header, raw


def _error(header: dict[str, Any]) -> AudioError | None:
    return AudioError(header["code"], header["message"]) if "code" in header else None
