"""A Ray for one run: started for it, or joined.

By default a run starts a Ray of its own and never joins one it finds. Its logical CPUs are more than
the machine's cores: they are only tokens, and too few of them make Ray Data wait for ever without a
word (a filter, read or decode task beside the model actors). What really runs is bounded by the number
of actors and the threads of each.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from mats_core.errors import SettingsError, first_line
from pipelines.cluster import own_ray
from pipelines.cluster.limits import check_limits
from pipelines.cluster.plan import Resources, free_memory, usable_cores
from pipelines.output.folder import IN_A_JOB

STORE_SHARE, STORE_BYTES = 0.2, 1e9
"""An own Ray's object store: of the free memory at most this share, and bytes for an actor."""
START_TRIES = 2
START_PATIENCE_S = 150.0
"""How long a node of a Ray of our own may take to register on a busy machine."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
TOKEN_REMEDY = "set RAY_AUTH_TOKEN_PATH to a file with its token (on its head: ray get-auth-token)"


class RunFailed(RuntimeError):
    """Ray gave up; the message says why in one line."""


def check_device(device: str, address: str | None) -> None:
    """Raises SettingsError for a GPU that this machine does not have; a cluster that is joined has its own."""
    if device.startswith("cuda") and address is None and IN_A_JOB not in os.environ:
        from mats_core.device import pick_device

        pick_device(device)


def asks_for_ray(address: str | None, actors: int | None) -> bool:
    """Whether a run is to have a Ray however little it has to do: its settings name one or say how many actors, it is a
    Ray job, or this process has a Ray already."""
    ray = sys.modules.get("ray")
    return bool(address or actors or IN_A_JOB in os.environ or (ray is not None and ray.is_initialized()))


def import_ray_meanwhile(address: str | None) -> None:
    """Import Ray in a thread, for a run that is to start or join one when it has done something else."""
    threading.Thread(target=_configure_ray, kwargs={"own": address is None}).start()


def here() -> Resources:
    """What a run has that needs no Ray; its model finds a GPU by itself."""
    return Resources(float(usable_cores()), 0.0, free_memory(), own=True)


def check_answers(address: str) -> None:
    """Raises SettingsError for an address where nobody listens: Ray itself would go on asking there for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _no_answer(address, error) from None


def _no_answer(address: str, error: Exception) -> SettingsError:
    problem = f"no Ray cluster answers at {address} ({first_line(error)})"
    return SettingsError("address", problem, "give the address of one that runs, or leave it out: a run starts its own")


@contextmanager
def ray_session(address: str | None, most_actors: int = 0) -> Iterator[Resources]:
    """Start a Ray, or join the one at `address`; yields the Resources to plan with, and disconnects at the end.

    Inside a process that has a Ray already (a notebook, a test session), that one is used and left as it is; in a Ray
    job, the cluster it was submitted to is joined. A Ray of the run's own has room for `most_actors`, and ends with it.
    Raises SettingsError where no cluster answers or the user's limits leave no room for a Ray, RunFailed where none
    starts.
    """
    if address is None and IN_A_JOB in os.environ:
        address = "auto"
    _configure_ray(own=address is None)
    import ray

    if ray.is_initialized():
        yield _cluster_resources(ray)
        return
    if address is None:
        yield from _own_session(ray, most_actors)
        return
    check_answers(address)
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # who has set a token means it to be used
        own_ray.read_authentication()
    try:
        with _own_sigterm():
            ray.init(address=address, **QUIET)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        if "Authentication" in f"{error!r} {error.__cause__!r}":
            raise SettingsError("address", f"the cluster at {address} wants a token", TOKEN_REMEDY) from None
        raise _no_answer(address, error) from None
    try:
        yield _cluster_resources(ray)
    finally:
        ray.shutdown()


def _own_session(ray: Any, most_actors: int) -> Iterator[Resources]:
    """A Ray of the run's own, for the time of it."""
    cores, available = usable_cores(), free_memory()
    num_cpus = 2 * max(cores, most_actors) + 4
    check_limits(num_cpus)
    folder = own_ray.make_folder()
    failed = False
    try:
        _start_own(ray, folder, num_cpus, object_store_bytes(max(cores, most_actors), available))
        yield Resources(float(cores), float(ray.cluster_resources().get("GPU", 0)), available, own=True)
    except Exception:
        failed = True
        raise
    finally:
        ray.shutdown()
        own_ray.read_authentication()
        if not failed:  # a run that failed leaves Ray's logs; one that did not leaves nothing
            shutil.rmtree(folder, ignore_errors=True)


def object_store_bytes(actors: int, available: int) -> int:
    """What is decoded waits there for the models: six tables of half an hour for each actor, as far as memory goes."""
    return int(max(256e6, min(STORE_SHARE * available, max(2e9, STORE_BYTES * actors))))


def _start_own(ray: Any, folder: Path, num_cpus: int, object_store_bytes: int) -> None:
    """Start a Ray of our own, with a second try. Raises RunFailed."""
    for attempt in range(START_TRIES):
        before = psutil.Process().children()
        try:
            with _own_sigterm(), _muted_stderr(), _patient_start(ray), _sessions_of_their_own(ray):
                own_ray.start(folder, num_cpus=num_cpus, object_store_memory=object_store_bytes, **QUIET)
            return
        except Exception as error:
            ray.shutdown()
            for child in set(psutil.Process().children()) - set(before):  # what a Ray that gave up leaves running
                with suppress(psutil.Error):
                    child.kill()
            if attempt + 1 == START_TRIES:
                raise RunFailed(f"Ray did not start, {START_TRIES} times ({folder} has its logs): {error}") from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Give SIGTERM back its handler: that of ray.init ends the process, and answers not yet written would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # it came just now
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _sessions_of_their_own(ray: Any) -> Iterator[None]:
    """Start Ray's processes in sessions of their own: what ends a terminal or a process group (SIGHUP, `timeout`) is
    for the run to hear, and it still needs them then. They end with the process that started them."""
    services: Any = getattr(ray._private, "services", None)
    start = getattr(services, "ConsolePopen", None)
    if start is None:
        yield
        return
    services.ConsolePopen = partial(start, start_new_session=True)
    try:
        yield
    finally:
        services.ConsolePopen = start


@contextmanager
def _patient_start(ray: Any) -> Iterator[None]:
    """Give a starting node START_PATIENCE_S to register; Ray 2.60 allows 30 s, fixed in its code."""
    services: Any = getattr(ray._private, "services", None)
    ask = getattr(services, "get_node", None)
    if ask is None:
        yield
        return

    def asked_again(*arguments: Any, **given: Any) -> Any:
        until = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                return ask(*arguments, **given)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    services.get_node = asked_again
    try:
        yield
    finally:
        services.get_node = ask


def _cluster_resources(ray: Any) -> Resources:
    """What the joined cluster has, or its autoscaler may bring it to, and what of it is free."""
    found, free = ray.cluster_resources(), ray.available_resources()
    try:
        most = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    except Exception:  # an interface of Ray's own, which may go
        most = {}
    limit = {name: float(value) for name, value in most.items() if value < sys.maxsize}  # the rest has none
    cpus, gpus = (max(float(found.get(name, 0)), limit.get(name, 0.0)) for name in ("CPU", "GPU"))
    unused = (float(free.get("CPU", 0)), float(free.get("GPU", 0)))
    return Resources(cpus, gpus, int(found.get("memory", 0)), own=False, free=unused)


def describe_ray(resources: Resources) -> dict[str, Any]:
    """The Ray a run is connected to, for `_run.json`: whether it is the run's own, its nodes, CPUs and GPUs."""
    import ray

    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return {"own": resources.own, "nodes": nodes, "cpus": resources.cpus, "gpus": resources.gpus}


def _configure_ray(own: bool) -> None:
    """Settings of Ray itself. Its own lines stay off the terminal (MATS_DEBUG shows them); its log files have them."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if own:
        os.environ.setdefault("RAY_worker_niceness", "0")  # note: 15 by default, so any other program starves a run
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # note: else each worker looks through its memory every second
    context.raise_original_map_exception = True  # note: wrapped by Ray Data, a SettingsError is text in a traceback
    if not os.environ.get("MATS_DEBUG"):
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Discard what is written to stderr: Ray's C++ parts greet there. What goes wrong comes as an exception."""
    sys.stderr.flush()
    terminal, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nothing)


def readable_errors(blocks: Iterator[Any]) -> Generator[Any, None, None]:
    """`blocks`, with what an actor raised in place of Ray's account of it (SettingsError, or RunFailed)."""
    from ray.exceptions import RayError

    try:
        yield from blocks
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        for each in (cause, error, error.__cause__):
            if isinstance(each, SettingsError):
                raise each from error
        raise failed_with(cause) from error


def failed_with(cause: BaseException) -> RunFailed:
    """What an actor raised, by its name and the last line of what it says."""
    return RunFailed(f"{type(cause).__name__}: {''.join(str(cause).strip().splitlines()[-1:])}"[:400])
