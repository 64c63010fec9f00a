"""A run is a list of stages, declared as data: what an actor takes, which columns it reads and writes.

`check_stages` finds a list that cannot work before anything starts; `execution` runs one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.cluster.plan import Plan
from pipelines.data.private_uris import FindUris


@dataclass(frozen=True)
class StageContext:
    """What the actors of every stage know of their run.

    work_list: URI of its folder. find_uris: entry ids → the URIs of those that have a secret, which the work list does
    not hold; None where no entry has one. decoder_workers, threads, batch_size: see `Plan`.
    """

    work_list: str = ""
    run_id: str = ""
    decoder_workers: int = 1
    threads: int = 0
    batch_size: int = 16
    find_uris: FindUris | None = None


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    actor: a class, made in every actor as `actor(context, *arguments)`; an instance is called with an Arrow table and
    gives one, or several. isolated: it lives in a process of its own (`isolation`), for a row may end it; then an
    instance is called by `in_flight` threads. cpus, gpus:
    of Ray's, for an actor; a stage declared with gpus gets the share of one that the plan has for it. batch: rows in a
    table; None: as they come. reads, writes, drops: columns; what it does not name it hands on. actors, first_actors,
    elastic: see `Plan`.
    """

    name: str
    actor: type
    arguments: tuple[Any, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    cpus: float = 1.0
    gpus: float = 0.0
    batch: int | None = None
    actors: int = 1
    first_actors: int = 1
    elastic: bool = False
    isolated: bool = False
    in_flight: int = 1

    def make(self, context: StageContext) -> Any:
        """The actor in this process, without Ray."""
        return self.actor(context, *self.arguments)

    def planned(self, plan: Plan) -> Stage:
        """The stage with the actors, GPUs and batch that the plan has for it."""
        own = replace(self, elastic=plan.elastic, in_flight=plan.in_flight if self.isolated else 1)
        if not self.gpus:
            return replace(own, actors=plan.decode_actors, first_actors=plan.decode_actors)
        gpus = min(self.gpus, plan.gpus_per_actor)
        # A stage cuts tables into batches itself, so no answer waits for a table to fill. For GPUs Ray wants a
        # number, and joins tables up to it.
        batch = plan.batch_size if gpus else self.batch
        return replace(own, gpus=gpus, batch=batch, actors=plan.actors, first_actors=plan.first_actors)


def check_stages(stages: Sequence[Stage], columns: Iterable[str]) -> None:
    """Raises ValueError for a stage that reads a column which nothing before it writes.

    columns: those of the work list, which the first stage can read.
    """
    readable = set(columns)
    writers = "the work list"
    for stage in stages:
        missing = sorted(set(stage.reads) - readable)
        if missing:
            problem = f"stage {stage.name} reads {', '.join(missing)}, which {writers} does not write"
            raise ValueError(f"{problem}; it can read {', '.join(sorted(readable))}")
        readable = (readable | set(stage.writes)) - set(stage.drops)
        writers = f"{writers} or {stage.name}"
