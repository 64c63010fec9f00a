"""The child of `mats_core.audio.sandbox`: answers decode and probe requests, one at a time, within limits of its
own.

It trusts its files with nothing: memory is limited, an alarm ends it when a file takes too long, and its
answers are JSON and raw samples, which the parent can read without running any of it (a pickle could not
be).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mats_core.audio.decode import DecodeLimits, decode, probe
from mats_core.audio.file import AudioError
from mats_core.child import send
from mats_core.storage import Listed, StorageError, open_binary, public_uri, scheme
from mats_core.storage.clients import coded, open_client
from mats_core.storage.uris import archive_of

# Of a remote file, fetched at once: a header needs little; a minute of audio in small pieces needs many requests.
_HEADER_BYTES_AHEAD, _BYTES_AHEAD, _FILE_BYTES_AHEAD = 1 << 16, 1 << 20, 8 << 20


def serve(descriptor: int, settings: dict[str, Any]) -> None:
    """Answer requests from the connection until it closes."""
    limits = DecodeLimits(**settings)
    connection = Connection(descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # the first that the kernel is to kill
        Path("/proc/self/oom_score_adj").write_text("800")
    memory = _MemoryLimit(limits.memory_bytes)
    send(connection, b'{"ready": true}')
    _silence()
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        before = time.process_time()
        header, samples = _answer(request, limits, memory)
        header["cpu_s"] = time.process_time() - before
        header["retire"] = header.get("code") == "memory" or memory.is_used_up()
        try:
            send(connection, json.dumps(header).encode(), samples)
        except (BrokenPipeError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        if header["retire"]:
            return


def _answer(request: dict[str, Any], limits: DecodeLimits, memory: _MemoryLimit) -> tuple[dict[str, Any], Any]:
    """What was found (or `code` and `message`), and the samples, int16 [T]."""
    uri = request["uri"]
    limits = limits.for_uri(uri)
    signal.setitimer(signal.ITIMER_REAL, limits.deadline_s + 5)  # should the parent be gone: end by SIGALRM
    name = public_uri(request.get("name") or uri)
    try:
        memory.load_client(uri)
        whole = request["op"] == "decode" and not request["start_s"] and request["duration_s"] is None
        read_ahead = _FILE_BYTES_AHEAD if whole else _BYTES_AHEAD if request["op"] == "decode" else _HEADER_BYTES_AHEAD
        listed = Listed(request.get("size") or 0, request.get("version") or "")
        with open_binary(uri, limits.max_bytes, read_ahead, listed) as file:
            if request["op"] == "probe":
                info = probe(file, name, limits)
                return {"info": {**vars(info), "size_bytes": file.seek(0, os.SEEK_END)}}, b""
            stretch = {each: request[each] for each in ("start_s", "duration_s", "channel")}
            decoded = decode(file, sample_rate=request["rate"], **stretch, limits=limits, name=name)
            told = {name: getattr(decoded, name) for name in ("complete", "lost_s", "end_s", "remark")}
            return {**told, "levels": vars(decoded.levels)}, decoded.samples
    except (AudioError, StorageError) as error:
        return {"code": error.code, "message": error.message}, b""
    except MemoryError:
        return {"code": "memory", "message": ""}, b""
    except Exception:  # a decoder's own kind of failure: one row, not the process
        return {"code": "decode_failed", "message": "it is damaged in a way that its decoder does not expect"}, b""


class _MemoryLimit:
    """Address space above what the process takes when it does nothing. Linux only; elsewhere there is no
    limit."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._schemes = {""}
        self._set_limit()

    def _set_limit(self) -> None:
        self._baseline = _address_space()
        if self._baseline:
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            wanted = self._baseline + self._memory_bytes
            if hard != resource.RLIM_INFINITY:
                wanted = min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))

    def load_client(self, uri: str) -> None:
        """Load the client library of a store outside the limit: it belongs to no file."""
        uri = archive_of(uri)
        kind = scheme(uri)
        if kind in self._schemes:
            return
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        try:
            with coded(uri):
                open_client(uri)
            self._schemes.add(kind)
        finally:
            self._set_limit()

    def is_used_up(self) -> bool:
        """Whether files left so much memory behind that a fresh process is due."""
        return bool(self._baseline) and _address_space() > self._baseline + self._memory_bytes // 3


def _address_space() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _silence() -> None:
    """Decoders print about every damaged frame; the answer says it better."""
    if sys.stderr is not None:  # a daemon has none
        sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if nothing > 2:
        os.close(nothing)
