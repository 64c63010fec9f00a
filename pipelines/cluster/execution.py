"""How the stages of a run are run: on the Ray that is connected, or here, where a few rows are not worth one."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mats_core.errors import SettingsError
from pipelines.cluster.isolation import IsolatedStage
from pipelines.cluster.plan import Plan
from pipelines.cluster.session import failed_with
from pipelines.cluster.stages import Stage, StageContext


class Here:
    """Runs stages without Ray: models and decoders in processes of their own, all else in this one.

    A context manager: the processes end with it.
    """

    def __init__(self) -> None:
        self._models: dict[str, IsolatedStage] = {}

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the models that were loaded."""
        for model in self._models.values():
            model.close()

    def start(self, stages: Sequence[Stage], context: StageContext) -> None:
        """Begin to load what is isolated, before there is a table for it; `run` is to get the same arguments."""
        for stage in stages:
            if stage.isolated and stage.name not in self._models:
                self._models[stage.name] = IsolatedStage(context, stage)

    def run(self, blocks: Sequence[pa.Table], stages: Sequence[Stage], context: StageContext) -> Iterator[pa.Table]:
        """`blocks` through all stages, one after the other. Raises SettingsError as a stage does, and RunFailed."""
        try:
            self.start(stages, context)
            actors = [self._models.get(stage.name) or stage.make(context) for stage in stages]
            for block in blocks:
                yield from _through(block, actors)
        except SettingsError:
            raise
        except Exception as error:
            raise failed_with(error) from error


def _through(table: pa.Table, actors: Sequence[Any]) -> Iterator[pa.Table]:
    if not actors:
        if len(table):
            yield table
        return
    found = actors[0](table)
    for each in [found] if isinstance(found, pa.Table) else found:
        yield from _through(each, actors[1:])


def run_stages(
    blocks: list[pa.Table], stages: Sequence[Stage], plan: Plan, context: StageContext
) -> Iterator[pa.Table]:
    """`blocks` through all stages on the connected Ray; tables in the order in which they are done."""
    import ray

    rows = ray.data.from_blocks(blocks)  # note: from_arrow would be a task and 45 kB a table
    for stage in stages:
        planned = stage.planned(plan)
        actor, arguments = (IsolatedStage, (planned,)) if stage.isolated else (stage.actor, stage.arguments)
        rows = rows.map_batches(
            actor, fn_constructor_args=(context, *arguments),
            batch_format="pyarrow", batch_size=planned.batch, num_cpus=planned.cpus, num_gpus=planned.gpus or None,
            compute=actor_pool(planned),
            **bounded_retries(ray.data.Dataset.map_batches),
        )  # fmt: skip
    # note: with prefetching a table is handed over when the next one has come, so it is durable that much later
    for table in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        if len(table):
            yield table


def actor_pool(stage: Stage) -> Any:
    """Ray Data's strategy for the actors of a planned stage; an elastic pool begins with some and has one or more.

    An actor of an elastic pool is handed two tables at most beyond those it works on, lest what a slow node has taken
    hold up the end.
    """
    from ray.data import ActorPoolStrategy

    at_once: dict[str, Any] = {}
    if stage.isolated:
        at_once = {"max_concurrent_calls_per_actor": stage.in_flight, "enable_true_multi_threading": True}
    if not stage.elastic:
        return ActorPoolStrategy(size=stage.actors, **at_once)
    sizes = {"min_size": 1, "max_size": stage.actors, "initial_size": stage.first_actors}
    return ActorPoolStrategy(**sizes, **at_once, max_tasks_in_flight_per_actor=1 + stage.in_flight)


def bounded_retries(map_batches: Any) -> dict[str, Any]:
    """The argument by which a table that ends its actor is tried four times; Ray Data's own default is for ever.

    Ray 2.60 takes this only as an extra argument that later versions may no longer have.
    """
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    kinds = [each.kind for each in inspect.signature(map_batches).parameters.values()]
    return {"max_task_retries": 3} if inspect.Parameter.VAR_KEYWORD in kinds else {}
