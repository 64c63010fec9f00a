"""One run writes at a time: a lease file in OUTPUT/_state says who, where and since when.

The holder renews it; a holder that is gone (same machine: its process ended; elsewhere: no renewal for
EXPIRES_S) loses it. Before every part file the holder reads it again, so that one who lost it stops.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError

RENEW_S = 10.0
EXPIRES_S = 60.0


class LeaseLost(RuntimeError):
    """Another run took OUTPUT over."""


class LeaseHeld(SettingsError):
    """Another run is writing OUTPUT."""


class Lease:
    """Held from `acquire` to `release`; renewed by a thread of its own."""

    def __init__(self, state_uri: str, run_id: str) -> None:
        self.uri = storage.join(state_uri, "lease.json")
        self.run_id = run_id
        self._since = time.time()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: dict[str, Any] | None = None

    def acquire(self) -> None:
        """Take the lease; raises LeaseHeld, naming the holder, while another run lives."""
        holder = self._read()
        if holder is not None and not _is_gone(holder):
            raise LeaseHeld("output", "an OUTPUT that another run is writing", _who(holder))
        self._write()
        time.sleep(0.1)  # two that start together: the later writer wins, the other one sees it here
        holder = self._read()
        if holder is None or holder["run_id"] != self.run_id:
            raise LeaseHeld("output", "an OUTPUT that another run is writing", _who(holder or {}))
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost unless this run still holds the lease."""
        holder = self._lost or self._read()
        if holder is None or holder["run_id"] != self.run_id:
            raise LeaseLost(f"another run took this OUTPUT over: {_who(holder or {})}")

    def release(self) -> None:
        """Give the lease back, if it is still this run's."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        holder = self._read()
        if holder is not None and holder["run_id"] == self.run_id:
            storage.remove_tree(self.uri)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                holder = self._read()
                if holder is None or holder["run_id"] != self.run_id:
                    self._lost = holder or {"run_id": "?"}
                    return
                self._write()
            except (OSError, storage.StorageError):
                continue  # a store that stalls: the next turn tries again, `check` decides

    def _read(self) -> dict[str, Any] | None:
        try:
            holder = json.loads(storage.read_bytes(self.uri))
        except (storage.StorageError, FileNotFoundError):
            return None
        except ValueError:
            return None
        return holder if isinstance(holder, dict) and "run_id" in holder else None

    def _write(self) -> None:
        holder = {
            "run_id": self.run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_start(os.getpid()),
            "since": self._since,
            "renewed": time.time(),
        }
        storage.write_bytes(self.uri, json.dumps(holder).encode())


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


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder.get("host") == socket.gethostname():
        started = _process_start(int(holder["pid"]))
        return started is None or started != holder.get("process_started")
    return time.time() - float(holder.get("renewed", 0)) > EXPIRES_S


def _who(holder: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(holder.get("since", 0))))
    return f"one run at a time; process {holder.get('pid', '?')} on {holder.get('host', '?')} holds it since {since}"
