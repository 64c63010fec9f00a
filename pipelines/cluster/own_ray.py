"""The Ray that a run starts for itself: closed to everybody else.

It listens on loopback and on socket files in a folder that its user alone may enter. Who connects needs a token that
was made for this Ray and that only its own processes know: it is in their environment, and on no command line. Of Ray's
services those run without which no actor starts: no dashboard, no job agent, no metrics server, no autoscaler.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, first_line
from mats_core.packages import ROOT

PROGRAM = Path(__file__).with_name("ray_program.py")
SOCKET_NAME = len("/session_2026-11-27_20-08-44_689815_4194304/sockets/plasma_store")
LONGEST_SOCKET = 107


def make_folder() -> Path:
    """A new folder for a Ray's sockets, logs and spilled objects that this user alone may enter.

    It is made in $RAY_TMPDIR or the temporary folder, and in /tmp where that has too long a name for a socket. Raises
    SettingsError where nothing can be written there.
    """
    place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(place)) + len("/mats-ray-12345678/") + SOCKET_NAME > LONGEST_SOCKET:
        place = "/tmp"
    try:
        os.makedirs(place, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="mats-ray-", dir=place))  # note: with mode 0700
    except OSError as error:
        problem = f"Ray can make no folder in {place} ({first_line(error)})"
        raise SettingsError("RAY_TMPDIR", problem, "set it to a folder of a local disk that you may write to") from None


def start(folder: Path, **sizes: Any) -> None:
    """Start a Ray in `folder` with ray.init(**sizes) and connect to it. Raises what Ray raises where it does not start,
    and RuntimeError where others could reach it."""
    import ray
    from ray._common.network_utils import is_localhost
    from ray._private import node, ray_constants, services, utils

    config = ray.job_config.JobConfig()
    config._py_driver_sys_path = OwnPaths()
    closed = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # note: Ray's name for "loopback alone", which is its way on a Mac
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        # a worker for each CPU that we count, before anybody asks for one: 132 of them on 64 cores
        "RAY_prestart_worker_first_driver": "0",
        # where these are set they mean another Ray
        "RAY_REDIS_ADDRESS": None, ray_constants.GCS_PORT_ENVIRONMENT_VARIABLE: None,
    }  # fmt: skip
    with (
        environment(closed),
        _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _replaced(node, "Node", _bare(node.Node)),
        # note: without what its dashboard needs, Ray's agent opens no ports of its own; PROGRAM leaves out the rest
        _replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("closed")),
        _replaced(services, "_build_python_executable_command_memory_profileable", _python),
        _replaced(node, "try_to_create_directory", _private_directory),
    ):
        read_authentication()
        ray.init(address="local", include_dashboard=False, _temp_dir=str(folder), job_config=config, **sizes)
    address = ray.util.get_node_ip_address()
    if not is_localhost(address):
        raise RuntimeError(f"it listens at {address}, where others reach it")


def read_authentication() -> None:
    """Have Ray read mode and token from the environment again: it does so once, and a process may have several Rays."""
    from ray import _raylet

    raylet: Any = _raylet  # its declarations lack these names
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _bare(node: type) -> type:
    """Ray's node without the services that no run of ours needs, and with our program for its workers."""

    class BareNode(node):  # type: ignore[misc]
        def __init__(self, ray_params: Any, **given: Any) -> None:
            ray_params.no_monitor, ray_params.include_log_monitor = True, False
            ray_params.worker_path = str(PROGRAM)
            super().__init__(ray_params, **given)

        def start_api_server(self, **_: Any) -> None:
            self._webui_url = ""

    return BareNode


def _python(component: str, *_: Any, **__: Any) -> list[str]:
    """The start of the command of a Python program of Ray's."""
    from ray._private.ray_constants import PROCESS_TYPE_DASHBOARD_AGENT

    return [sys.executable, "-u", *([str(PROGRAM)] if component == PROCESS_TYPE_DASHBOARD_AGENT else [])]


class OwnPaths(list[str]):
    """Folders that a driver adds to `sys.path` of its workers: of those that Ray adds (the one it was started in and
    that of its script, whose files would shadow modules) only the one that holds this package."""

    def extend(self, paths: Any) -> None:
        super().extend(path for path in paths if Path(path) == ROOT)


def _private_directory(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)


@contextmanager
def environment(values: dict[str, str | None]) -> Iterator[None]:
    """Variables of the environment for the time of a block; None: not set."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A name of a module with another value for the time of a block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
