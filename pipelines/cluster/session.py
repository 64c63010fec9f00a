"""A Ray for one run, and how its CPUs, GPUs and memory are shared out.

By default a run starts a Ray of its own and never joins one it finds. Its logical CPUs are more than
the machine's cores: they are only tokens, and too few of them make Ray Data wait for ever without a
word (a filter, read or decode task beside the model actors). What really runs is bounded by the number
of actors and the threads of each.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, got_allowed
from pipelines.settings.archive import RunSettings

DECODER_CPUS = 0.5
MODEL_CPUS = 1.0
WORKERS_PER_DECODER = 4
SHARD_ROWS = 32
ROWS_WORTH_AN_ACTOR = 150
START_TRIES = 2
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this for the entry point of a job."""
START_PATIENCE_S = 150.0
CPU_BATCH, GPU_BATCH = 16, 64
MAX_SHARDS = 10_000


@dataclass(frozen=True)
class Resources:
    """What a run may use: CPUs (cores, where Ray is our own), GPUs, memory in bytes."""

    cpus: float
    gpus: float
    memory: int
    own: bool
    now: tuple[float, float] | None = None
    """CPUs and GPUs of a cluster that nobody uses now; None: all."""


@dataclass
class Plan:
    """How a run uses what there is. `threads` is torch's a model actor; `decoder_workers` processes a decode actor."""

    actors: int
    threads: int
    gpus_per_actor: float
    batch_size: int
    decode_actors: int
    decoder_workers: int
    shard_rows: int
    elastic: bool = False
    first_actors: int = 1
    """Where not all actors find a place at once, pools begin with `first_actors`, and grow and shrink with the work."""


def usable_cores() -> int:
    """Cores this process may use: affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = [*quota.read_text().split(), "100000"][:2]
        if limit != "max":
            cores = min(cores, max(1, math.ceil(int(limit) / int(period))))
    return cores


def free_memory() -> int:
    """Bytes this process could still take."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 4 << 30


def make_plan(settings: RunSettings, rows: int, model_bytes: int, there: Resources) -> Plan:
    """Choose what the user left open."""
    on_gpu = there.gpus >= 1 and settings.device != "cpu"
    cores = int(there.cpus)
    shard_rows = max(SHARD_ROWS, math.ceil(rows / MAX_SHARDS))
    batch_size = settings.batch_size or (GPU_BATCH if on_gpu else CPU_BATCH)
    threads = 0
    if on_gpu:
        actors = settings.actors or int(there.gpus)
    else:
        fitting = int(0.6 * there.memory / (2 * model_bytes + 700e6))
        # note: starting an actor costs several core-seconds of imports, so a short list gets fewer of them
        worth = math.ceil(rows / ROWS_WORTH_AN_ACTOR)
        actors = settings.actors or max(1, min(cores if there.own else cores - 1, fitting, worth))
        threads = max(1, cores // actors) if there.own else 1  # a cluster counts one CPU an actor
    decoders = settings.decoders or max(1, min(4 * actors, cores - actors) if on_gpu else cores // 8)
    first = _first_actors(actors, on_gpu, there)
    return Plan(
        actors=actors,
        threads=threads,
        gpus_per_actor=min(1.0, there.gpus / actors) if on_gpu else 0.0,
        batch_size=batch_size,
        decode_actors=math.ceil(decoders / WORKERS_PER_DECODER),
        decoder_workers=min(decoders, WORKERS_PER_DECODER),
        shard_rows=shard_rows,
        elastic=first < actors,
        first_actors=first,
    )


def _first_actors(actors: int, on_gpu: bool, there: Resources) -> int:
    """How many model actors find a place at once; the others come when their nodes do."""
    if there.now is None:
        return actors
    cpus, gpus = there.now
    return max(1, min(actors, int(gpus if on_gpu else (cpus - DECODER_CPUS) / MODEL_CPUS)))


def check_fits(plan: Plan, there: Resources) -> None:
    """Refuse a cluster where the run would wait for ever (SettingsError)."""
    cpus = plan.actors * MODEL_CPUS + plan.decode_actors * DECODER_CPUS
    gpus = plan.gpus_per_actor * plan.actors
    if cpus > there.cpus or gpus > there.gpus:
        raise got_allowed(
            "address",
            f"a cluster of {there.cpus:g} CPUs and {there.gpus:g} GPUs",
            f"at least {cpus:g} CPUs and {gpus:g} GPUs for {plan.actors} actors and {plan.decode_actors} "
            "decoding actors (see --actors, --decoders)",
        )


def check_device(device: str, address: str | None) -> None:
    """Refuse a GPU that this machine does not have, before anything starts (SettingsError)."""
    if device.startswith("cuda") and address is None and IN_A_JOB not in os.environ:  # not a cluster's
        from mats_core.device import pick_device

        pick_device(device)


def check_answers(address: str) -> None:
    """Refuse an address where nobody listens (SettingsError): Ray itself would ask there for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise got_allowed("address", address, f"a Ray cluster that answers ({error})") from None


@contextmanager
def ray_session(address: str | None, most_actors: int = 0) -> Iterator[Resources]:
    """A connected Ray; yields what there is to plan with. Shut down at the end if it is ours.

    Inside a process that has a Ray already (a notebook, a test session), that one is used; in a Ray job, the cluster
    it was submitted to.
    """
    if address is None and IN_A_JOB in os.environ:
        address = "auto"
    _quiet(own=address is None)
    import ray

    if ray.is_initialized():
        yield _cluster(ray)
        return
    cores = usable_cores()
    if address is None:
        available = free_memory()
        _start_own(ray, 2 * max(cores, most_actors) + 4, int(min(2e9, max(256e6, 0.2 * available))))
        resources = Resources(float(cores), float(ray.cluster_resources().get("GPU", 0)), available, own=True)
    else:
        check_answers(address)
        try:
            with _own_sigterm():
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise got_allowed("address", address, f"a Ray cluster that answers ({first})") from None
        resources = _cluster(ray)
    session = ray._private.worker._global_node.get_session_dir_path() if address is None else None
    try:
        yield resources
    finally:
        ray.shutdown()
    if session is not None:  # a run that failed leaves Ray's logs; one that did not leaves nothing
        shutil.rmtree(session, ignore_errors=True)


def _start_own(ray: Any, num_cpus: int, object_store_bytes: int) -> None:
    """Start a Ray of our own; on a busy machine that may need patience, or a second try."""
    for attempt in range(START_TRIES):
        before = _children()
        try:
            with _own_sigterm(), _muted_stderr(), _patience(ray):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=object_store_bytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )
            return
        except Exception as error:
            ray.shutdown()
            for child in _children() - before:  # what a Ray that gave up leaves running
                with suppress(OSError):
                    os.kill(child, signal.SIGKILL)
            if attempt + 1 == START_TRIES:
                raise RunFailed(f"Ray did not start, {START_TRIES} times: {error}") from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """SIGTERM stays the caller's: ray.init makes it end the process, and what a stopped pod has answered is lost."""
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
def _patience(ray: Any) -> Iterator[None]:
    """Give a starting node START_PATIENCE_S to register: Ray 2.60 allows 30 s, fixed in its code."""
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


def _children() -> set[int]:
    """Process ids of this process's children; empty where the system does not tell."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def _cluster(ray: Any) -> Resources:
    found = ray.cluster_resources()
    free = ray.available_resources()
    cpus, gpus = float(found.get("CPU", 0)), float(found.get("GPU", 0))
    most = _most_resources(ray)
    return Resources(
        max(cpus, most.get("CPU", 0.0)),
        max(gpus, most.get("GPU", 0.0)),
        int(found.get("memory", 0)),
        own=False,
        now=(float(free.get("CPU", 0)), float(free.get("GPU", 0))),
    )


def described(there: Resources) -> dict[str, Any]:
    """The Ray a run is connected to, for `_run.json`: whether it is the run's own, its nodes, CPUs and GPUs."""
    import ray

    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return {"own": there.own, "nodes": nodes, "cpus": there.cpus, "gpus": there.gpus}


def _most_resources(ray: Any) -> dict[str, float]:
    """What an autoscaler may bring the cluster to; {} without one, or where it has no limit."""
    try:
        most = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    except Exception:  # an interface of Ray's own, which may go
        return {}
    return {name: float(value) for name, value in most.items() if value < sys.maxsize}


def _quiet(own: bool) -> None:
    """Keep Ray's own lines off the terminal (MATS_DEBUG shows them); its log files have them all the same."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if own:
        os.environ.setdefault("RAY_worker_niceness", "0")  # note: 15 by default, so any other program starves a run
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nobody else is meant to reach this Ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # note: wrapped by Ray Data, a SettingsError is text in a traceback
    if not os.environ.get("MATS_DEBUG"):
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Ray's C++ parts greet on the file descriptor itself; what goes wrong comes as an exception."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def pool(most: int, first: int, elastic: bool) -> Any:
    """Actors of a stage: `most` of them, or on a cluster that has no room for all yet from one to `most`.

    An actor is handed two blocks at most, so that what a slow node has taken does not hold up the end.
    """
    from ray.data import ActorPoolStrategy

    if not elastic:
        return ActorPoolStrategy(size=most)
    return ActorPoolStrategy(min_size=1, max_size=most, initial_size=first, max_tasks_in_flight_per_actor=2)


def bounded_retries(map_batches: Any) -> dict[str, Any]:
    """A block that ends its actor is tried four times; Ray Data's own default is for ever.

    Ray 2.60 takes this only as an extra argument that later versions may no longer have.
    """
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    kinds = [each.kind for each in inspect.signature(map_batches).parameters.values()]
    return {"max_task_retries": 3} if inspect.Parameter.VAR_KEYWORD in kinds else {}


class RunFailed(RuntimeError):
    """Ray gave up; the message says why in one line."""


def readable_errors(blocks: Iterator[Any]) -> Iterator[Any]:
    """`blocks`, with what an actor raised in place of Ray's account of it (SettingsError, or RunFailed)."""
    from ray.exceptions import RayError

    try:
        yield from blocks
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        for each in (cause, error, error.__cause__):
            if isinstance(each, SettingsError):
                raise each from error
        lines = [line for line in str(cause).strip().splitlines() if line.strip()]
        raise RunFailed(f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:400]) from error
