"""Programs of our own in processes apart, at the other end of a pipe: decoders of sound, and models of a run.

They are started as programs, not by `multiprocessing`: its spawn and forkserver run the parent's main module again in
every child, which in a Ray worker is Ray itself, and in a notebook or script anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def start_child(
    program: str, settings: list[Any], environment: Mapping[str, str], errors: Any = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start Python on `program` (source); returns the process, and our end of a pipe to it.

    The program finds a JSON list in its first argument: the descriptor of its end, then `settings`. errors: what takes
    its standard error; None: what takes ours.
    """
    ours, theirs = (Connection(_above_streams(end)) for end in Pipe())
    # note: a child never sees Ctrl-C or a closed terminal, which reach the whole group: the parent decides
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", program, json.dumps([theirs.fileno(), *settings])],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process, ours


def send(connection: Connection, header: bytes, body: Any = b"") -> None:
    """Send a header and a body (anything with a buffer) that is not copied on this side. OSError where the other end
    is gone."""
    whole = memoryview(body).cast("B")
    connection.send_bytes(len(whole).to_bytes(8, "little") + header)
    while whole:
        whole = whole[os.write(connection.fileno(), whole) :]


def receive(connection: Connection) -> tuple[bytes, np.ndarray]:
    """What `send` sent: the header, and the body as uint8 [bytes]. EOFError or OSError where the other end is gone."""
    told = connection.recv_bytes()
    if len(told) < 8:
        raise OSError("not a message")
    body = np.empty(int.from_bytes(told[:8], "little"), np.uint8)
    left = memoryview(body)
    while left:
        got = os.readv(connection.fileno(), [left])
        if not got:
            raise EOFError
        left = left[got:]
    return told[8:], body


def module_paths() -> list[str]:
    """`sys.path` for a child: without the folder one stands in, which holds none of its modules."""
    return [each for each in sys.path if each]


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """What ended a child, in words: `exit code 3`, `SIGKILL`."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    code = process.returncode
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _above_streams(end: Connection) -> int:
    """The end of a pipe under another number: 0, 1 and 2, free in a daemon, are where programs read and write."""
    with end:
        return fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
