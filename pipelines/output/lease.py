"""One run writes at a time: a lease file in OUTPUT/_state says who, where and since when.

The file is made only where there is none. Its holder writes it anew every RENEW_S. A holder whose process can be looked
at is gone when that process is; any other, when the lease stays as it is for EXPIRES_S by the clock of the one who
wants it: clocks of two machines are never compared closely. Before every part the holder reads the lease again, so that
one who lost it stops.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError

RENEW_S = 10.0
EXPIRES_S = 60.0
LONG_SILENT_S = 600.0
"""Whoever was silent for so long is given two turns more, not EXPIRES_S."""
SETTLE_S = 0.1
WATCH_S = 1.0


class LeaseLost(RuntimeError):
    """Another run took OUTPUT over."""


class LeaseHeld(SettingsError):
    """Another run is writing OUTPUT."""


class Lease:
    """Held from `acquire` to `release`; renewed by a thread of its own.

    `renewed`: when it was written last, by the clock of `time.monotonic`.
    """

    def __init__(self, state_uri: str, run_id: str) -> None:
        self.uri = storage.join(state_uri, "lease.json")
        self.run_id = run_id
        self._since = time.time()
        self.renewed = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: dict[str, Any] | None = None

    def acquire(self, waiting: Callable[[str], None] | None = None) -> None:
        """Take the lease; raises LeaseHeld, naming the holder, while another run lives.

        A holder that went silent is watched, for EXPIRES_S at most; `waiting` is told who it is.
        """
        while not storage.create_bytes(self.uri, self._record()):
            holder = self._read()
            if holder is None:
                continue  # given back in this moment
            if not self._is_gone(holder, waiting):
                raise _held(holder)
            storage.remove_tree(self.uri)
        time.sleep(SETTLE_S)  # note: not every store makes a file only where there is none; there the later writer wins
        holder = self._read()
        if not self._mine(holder):
            raise _held(holder or {})
        self.renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost unless this run still holds the lease; StorageError when that cannot be known."""
        try:
            holder = self._lost or self._read()
        except storage.StorageError:
            if time.monotonic() - self.renewed < EXPIRES_S - 2 * RENEW_S:
                return  # too early for anybody to have taken it
            raise
        if not self._mine(holder):
            raise LeaseLost(f"another run took this OUTPUT over: {_who(holder or {})}")

    def release(self) -> None:
        """Give the lease back, if it is still this run's."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._mine(self._read()):
            storage.remove_tree(self.uri)

    def _mine(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and holder.get("run_id") == self.run_id

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                holder = self._read()
                if not self._mine(holder):
                    self._lost = holder or {"run_id": "?"}
                    return
                storage.write_bytes(self.uri, self._record())
                self.renewed = time.monotonic()
            except (OSError, storage.StorageError):
                continue  # a store that stalls: the next turn tries again, `check` decides

    def _is_gone(self, holder: dict[str, Any], waiting: Callable[[str], None] | None) -> bool:
        if holder.get("machine") == this_machine():
            started = _process_start(int(holder["pid"]))
            return started is None or started != holder.get("process_started")
        if waiting is not None:
            waiting(_who(holder))
        silent_s = abs(time.time() - float(holder.get("renewed", 0)))
        until = time.monotonic() + (EXPIRES_S if silent_s < LONG_SILENT_S else 2 * RENEW_S)
        while time.monotonic() < until:
            time.sleep(min(WATCH_S, RENEW_S))
            now = self._read()
            if now is None:
                return True
            if (now.get("run_id"), now.get("renewed")) != (holder.get("run_id"), holder.get("renewed")):
                return False
        return True

    def _read(self) -> dict[str, Any] | None:
        """What the lease says, {} when it says nothing that can be read; None where there is none."""
        try:
            holder = json.loads(storage.read_bytes(self.uri))
        except FileNotFoundError:
            return None
        except storage.StorageError as error:
            if error.code == "not_found":
                return None
            raise
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}

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
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(holder.get("since", 0))))
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')} holds it since {since}"
