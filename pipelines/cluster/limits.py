"""What this machine's user may take (ulimit, room for temporary files), checked before a Ray is started: one that lacks
it waits for ever, or ends with the names of its own actors."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile

from mats_core.errors import SettingsError, first_line

MiB = 1 << 20
LEAST = {  # limit: (name of ulimit's option, least that a Ray and one model need, unit of ulimit, what it is)
    resource.RLIMIT_AS: ("v", 7680 * MiB, 1024, "memory that a process may address"),
    resource.RLIMIT_DATA: ("d", 2048 * MiB, 1024, "memory that a process may write"),
    resource.RLIMIT_FSIZE: ("f", 2048 * MiB, 1024, "largest file"),
    resource.RLIMIT_NOFILE: ("n", 256, 1, "files and connections that a process may have open"),
    resource.RLIMIT_NPROC: ("u", 512, 1, "processes and threads of a user"),
}  # fmt: skip
WANTED = {resource.RLIMIT_NOFILE: 65_536, resource.RLIMIT_NPROC: 65_536}
FILES_A_CPU = 4
"""Files that Ray's node holds open for every worker there may be, beside 64 of its own."""
LEAST_ROOM = 64 * MiB


def check_limits(num_cpus: int = 0, temporary: str | None = None) -> None:
    """Raise SettingsError, named after the limit, where a Ray of our own with `num_cpus` could not run here.

    What may be raised is. temporary: the folder where Ray keeps its sockets and logs; by default where it does so.
    """
    for limit, (option, least, unit, what) in LEAST.items():
        if limit == resource.RLIMIT_NOFILE:
            least = max(least, 64 + FILES_A_CPU * num_cpus)
        soft, hard = resource.getrlimit(limit)
        wanted = WANTED.get(limit, least)
        if 0 <= soft < wanted and soft != hard:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(limit, (soft, hard))
        if 0 <= soft < least and not (limit == resource.RLIMIT_NPROC and os.geteuid() == 0):  # which root does not have
            problem = f"{soft // unit} is too little for a run ({what})"
            raise SettingsError(f"ulimit -{option}", problem, f"allow {least // unit} or more, or unlimited")
    folder = temporary or os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            room = shutil.disk_usage(folder).free
    except OSError as error:
        problem = f"{folder} takes no temporary files ({error.strerror})"
        raise SettingsError("TMPDIR", problem, "set it to a folder that can be written") from None
    if room < LEAST_ROOM:
        problem = f"{folder} has room for {room // MiB} MiB of temporary files, and a run needs {LEAST_ROOM // MiB}"
        raise SettingsError("TMPDIR", problem, "make room, or set it to another folder")
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        problem = f"nobody is reached at 127.0.0.1, where the parts of Ray meet ({first_line(error)})"
        raise SettingsError("loopback", problem, "ip link set lo up; ip addr add 127.0.0.1/8 dev lo") from None
