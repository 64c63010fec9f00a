"""How a run shares out CPUs, GPUs and memory: actors, threads, batches."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from mats_core.errors import SettingsError
from mats_core.model.facts import threads_worth
from pipelines.settings.archive import RunSettings

DECODER_CPUS = 0.5
"""Ray's CPUs that a decoding actor takes: its processes wait for storage much of the time."""
MODEL_CPUS = 1.0
WORKERS_PER_DECODER = 4
SHARD_ROWS = 32
ROWS_WORTH_AN_ACTOR = 150
BATCH_ROWS = 64
CPU_IN_FLIGHT, GPU_IN_FLIGHT = 2, 3
MAX_SHARDS = 10_000
MEMORY_SHARE, ACTOR_BYTES = 0.6, 700_000_000
"""Model actors may take this share of the free memory; each needs so much beside twice its model's size."""


@dataclass(frozen=True)
class Resources:
    """What a run may use: CPUs (cores, where Ray is the run's `own`), GPUs, memory in bytes."""

    cpus: float
    gpus: float
    memory: int
    own: bool
    free: tuple[float, float] | None = None
    """CPUs and GPUs of a joined cluster that nobody uses at this moment; None where all are free."""


@dataclass
class Plan:
    """How a run uses its resources. `_run.json` holds it.

    actors: model actors, each with `threads` of torch, `gpus_per_actor` and batches of `batch_size` rows.
    in_flight: tables that a model actor works on at once, so that its LLM has more to do when one ends.
    decode_actors: decoding actors, each with `decoder_workers` processes. shard_rows: rows of the work list that a
    decoding actor is given at once. elastic: not all actors find a place at once, so their pools begin with
    `first_actors` model actors, and grow and shrink with the work.
    """

    actors: int
    threads: int
    gpus_per_actor: float
    batch_size: int
    decode_actors: int
    decoder_workers: int
    shard_rows: int
    elastic: bool = False
    first_actors: int = 1
    in_flight: int = 1


def usable_cores() -> int:
    """Cores this process may use: its CPU affinity, and the CPU quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = [*quota.read_text().split(), "100000"][:2]
        if limit != "max":
            cores = min(cores, max(1, math.ceil(int(limit) / int(period))))
    return cores


def free_memory() -> int:
    """Bytes this process could still take."""
    return int(psutil.virtual_memory().available)


def make_plan(settings: RunSettings, rows: int, model_bytes: int, resources: Resources) -> Plan:
    """A plan for `rows` rows and a model of `model_bytes`, with whatever of it the settings say."""
    on_gpu = resources.gpus >= 1 and settings.device != "cpu"
    cores = int(resources.cpus)
    threads = 0
    if on_gpu:
        actors = settings.actors or int(resources.gpus)
    else:
        fitting = int(MEMORY_SHARE * resources.memory / (2 * model_bytes + ACTOR_BYTES))
        # note: starting an actor costs several core-seconds of imports, so a short list gets fewer of them
        worth = math.ceil(rows / ROWS_WORTH_AN_ACTOR)
        actors = settings.actors or max(1, min(cores if resources.own else cores - 1, fitting, worth))
        share = cores // actors if resources.own else 1  # a cluster counts one CPU an actor
        threads = max(1, min(share, threads_worth(model_bytes, cores)))
    decoders = settings.decoders or max(1, min(4 * actors, cores - actors) if on_gpu else cores // 8)
    first = actors  # that find a place at once; the others come when their nodes do
    if resources.free is not None:
        cpus, gpus = resources.free
        first = max(1, min(actors, int(gpus if on_gpu else (cpus - DECODER_CPUS) / MODEL_CPUS)))
    return Plan(
        actors=actors, threads=threads, elastic=first < actors, first_actors=first,
        in_flight=GPU_IN_FLIGHT if on_gpu else CPU_IN_FLIGHT,
        gpus_per_actor=min(1.0, resources.gpus / actors) if on_gpu else 0.0,
        batch_size=settings.batch_size or BATCH_ROWS,
        decode_actors=math.ceil(decoders / WORKERS_PER_DECODER), decoder_workers=min(decoders, WORKERS_PER_DECODER),
        shard_rows=max(SHARD_ROWS, math.ceil(rows / MAX_SHARDS)),
    )  # fmt: skip


def check_fits(plan: Plan, resources: Resources) -> None:
    """Raises SettingsError for a cluster with too few CPUs or GPUs: Ray Data would wait for them for ever."""
    cpus = plan.actors * MODEL_CPUS + plan.decode_actors * DECODER_CPUS
    gpus = plan.gpus_per_actor * plan.actors
    if cpus > resources.cpus or gpus > resources.gpus:
        problem = (
            f"this cluster has {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and {plan.actors} model actors "
            f"with {plan.decode_actors} decoding actors need at least {cpus:g} CPUs and {gpus:g} GPUs"
        )
        raise SettingsError("address", problem, "lower --actors or --decoders, or join a larger cluster")
