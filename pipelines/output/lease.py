"""One run writes at a time: the one that made the newest generation (`data.generations`), while its lease is renewed.

Two files say it. The generation says who; there is one of each number, so of several who want OUTPUT one gets it. The
lease, `_state/lease-<run id>.json`, is of that run alone: it says where the run lives, and is written anew every
RENEW_S. A holder whose process can be looked at is gone when that process is, or when its lease is; any other, when the
lease stays as it is for EXPIRES_S by the clock of the one who wants it: clocks of two machines are never compared
closely. Then the next generation is made.

A holder who was only frozen goes on some day. Before and after each file it looks for a newer generation, and where
there is one it stops; what it wrote meanwhile does not count.

In a store that cannot make a file only where there is none, one is made by claims (`storage.create_bytes`). There one
who is frozen for over 5 s while it makes a generation may overwrite another's of the same number, even when that one
works already. It is the holder then, and the other finds that out before its next file. Either way one generation
remains, and the files of the other do not count: work is done twice, no row is lost or doubled.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.generations import Generation, generation_uri, newest

RENEW_S = 10.0
EXPIRES_S = 60.0
LONG_SILENT_S = 600.0
"""Whoever was silent for so long is given two turns more, not EXPIRES_S."""
WATCH_S = 1.0


class LeaseLost(RuntimeError):
    """Another run took OUTPUT over."""


class LeaseHeld(SettingsError):
    """Another run is writing OUTPUT."""


class Lease:
    """Held from `begin` to `release`; renewed by a thread of its own.

    `generation`: this run's newest. `renewed`: when the lease was last known to be this run's, by `time.monotonic`.
    """

    generation: Generation

    def __init__(self, output: str, run_id: str) -> None:
        self.output, self.run_id = output, run_id
        self.uri = _lease_uri(output, run_id)
        self._since = time.time()
        self.renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, waiting: Callable[[str], None] | None = None) -> None:
        """Take OUTPUT over as it is: `wait` and `begin`."""
        before = self.wait(waiting)
        self.begin(before, before or Generation(0, ""))

    def wait(self, waiting: Callable[[str], None] | None = None) -> Generation | None:
        """The newest generation, once its holder is gone; raises LeaseHeld, naming the holder, while that lives.

        A holder that went silent is watched, for EXPIRES_S at most; `waiting` is told who it is.
        """
        before = newest(self.output)
        uri = _holder_uri(self.output, before)
        holder = _read(uri)
        if holder is not None and not _is_gone(uri, holder, waiting):
            raise _held(holder)
        return before

    def begin(self, before: Generation | None, asked: Generation) -> None:
        """Make the generation after `before`, which says what `asked` does; raises LeaseHeld where another run did."""
        try:
            storage.write_bytes(self.uri, self._record())  # first, so that nobody takes it for given back
        except storage.StorageError:
            if newest(self.output) == before:
                raise
            raise self._beaten() from None  # who was faster took what lay there for a killed run's
        if not self._make(replace(asked, number=before.number + 1 if before else 1, run_id=self.run_id)):
            storage.remove_tree(self.uri)
            raise self._beaten()
        storage.remove_tree(_holder_uri(self.output, before))
        self.renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _beaten(self) -> LeaseHeld:
        return _held(_read(_holder_uri(self.output, newest(self.output))) or {})

    def advance(self, **changes: Any) -> None:
        """Make this run's next generation, with changes to what its last one says; raises LeaseLost."""
        asked = replace(self.generation, **{"number": self.generation.number + 1, **changes})
        if not self._make(asked):
            raise _lost(self.output, newest(self.output))

    def _make(self, asked: Generation) -> bool:
        try:
            if not storage.create_bytes(generation_uri(self.output, asked.number), asked.to_bytes()):
                return False
        except storage.StorageError:
            found = newest(self.output)
            if found is not None and found.number >= asked.number:
                return False  # the run that made it cleared away what this one was about to put in place
            raise
        found = newest(self.output)
        if found is None or (found.number, found.run_id) != (asked.number, asked.run_id):
            return False  # one frozen for so long that its number was free again, or overwritten (see above)
        self.generation = asked
        storage.remove_tree(generation_uri(self.output, asked.number - 2))
        return True

    def check(self, written: str = "") -> None:
        """`check_generation` for this run, which is not asked while a store stalls and nobody can have taken OUTPUT."""
        try:
            check_generation(self.output, self.generation.run_id, written)
        except storage.StorageError:
            if time.monotonic() - self.renewed >= EXPIRES_S - 2 * RENEW_S:
                raise

    def release(self) -> None:
        """Give OUTPUT back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        storage.remove_tree(self.uri)

    def _mine(self, found: Generation | None) -> bool:
        return found is not None and found.run_id == self.generation.run_id

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                if not self._mine(newest(self.output)):
                    return
                storage.write_bytes(self.uri, self._record())
                self.renewed = time.monotonic()
            except (OSError, storage.StorageError):
                continue  # a store that stalls: the next turn tries again, `check` decides

    def _record(self) -> bytes:
        holder = {
            "run_id": self.run_id,
            "host": socket.gethostname(),
            "machine": this_machine(),
            "pid": os.getpid(),
            "process_started": _process_start(os.getpid()),
            "since": self._since,
            "renewed": time.time(),
        }
        return json.dumps(holder).encode()


def check_generation(output: str, run_id: str, written: str = "") -> None:
    """Raise LeaseLost unless the newest generation of OUTPUT is of this run; StorageError when that cannot be known.

    run_id: "" is of no run, and never lost. written: name of a file that the run just wrote. It is removed where it
    counts no more; it still does where another run took it over, before which it was written.
    """
    if not run_id:
        return
    found = newest(output)
    if found is not None and found.run_id == run_id:
        return
    if written and (found is None or not found.counts(written)):
        storage.remove_tree(storage.join(output, *written.split("/")))
    raise _lost(output, found)


def _lost(output: str, found: Generation | None) -> LeaseLost:
    if found is None:
        return LeaseLost(f"what this run had begun in {storage.public_uri(output)} was removed meanwhile")
    holder = _read(_holder_uri(output, found))
    who = _who(holder) if holder else "it has ended since"
    return LeaseLost(f"another run took this OUTPUT over ({who}); what this one still writes does not count")


def _lease_uri(output: str, run_id: str) -> str:
    return storage.join(output, "_state", f"lease-{run_id}.json")


def _holder_uri(output: str, generation: Generation | None) -> str:
    """The lease of a generation's run; without one, that of an older version."""
    return _lease_uri(output, generation.run_id) if generation else storage.join(output, "_state", "lease.json")


def _is_gone(uri: str, holder: dict[str, Any], waiting: Callable[[str], None] | None) -> bool:
    if holder.get("machine") == this_machine():
        started = _process_start(int(holder["pid"]))
        return started is None or started != holder.get("process_started")
    if waiting is not None:
        waiting(_who(holder))
    silent_s = abs(time.time() - float(holder.get("renewed", 0)))
    until = time.monotonic() + (EXPIRES_S if silent_s < LONG_SILENT_S else 2 * RENEW_S)
    while time.monotonic() < until:
        time.sleep(min(WATCH_S, RENEW_S))
        now = _read(uri)
        if now is None:
            return True
        if (now.get("run_id"), now.get("renewed")) != (holder.get("run_id"), holder.get("renewed")):
            return False
    return True


def _read(uri: str) -> dict[str, Any] | None:
    """What a lease says, {} when it says nothing that can be read; None where there is none."""
    try:
        holder = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        return None
    except storage.StorageError as error:
        if error.code == "not_found":
            return None
        raise
    except ValueError:
        return {}
    names = ("pid", "since", "renewed")
    whole = isinstance(holder, dict) and all(type(holder.get(name)) in (int, float) for name in names)
    return holder if whole else {}


def this_machine() -> str:
    """Where a process id means the same process: this boot of this machine, and this container's own ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _process_start(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's ticks, so that a reused pid is not taken for the
    holder. None when it is gone (a zombie is), "" where the system does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]


def _held(holder: dict[str, Any]) -> LeaseHeld:
    problem = f"another run is writing into it ({_who(holder)})"
    return LeaseHeld("output", problem, "wait until it has ended, or choose another OUTPUT")


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "its lease does not say who"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(holder.get("since", 0))))
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')} holds it since {since}"
