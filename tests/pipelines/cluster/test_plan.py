"""How a run shares out cores, GPUs and memory."""

from __future__ import annotations

import pytest

from mats_core.errors import SettingsError
from pipelines.cluster import plan as planning
from pipelines.cluster.execution import actor_pool
from pipelines.cluster.plan import Plan, Resources, check_fits
from pipelines.cluster.stages import Stage
from pipelines.settings.archive import RunSettings

GB = 10**9


def settings(**given: object) -> RunSettings:
    return RunSettings(input="in", output="out", **given)  # type: ignore[arg-type]


def make_plan(given: RunSettings, rows: int, size: int, cpus: int, gpus: int, memory: int, own: bool = True) -> Plan:
    return planning.make_plan(given, rows, size, Resources(cpus, gpus, memory, own))


def test_two_cores_get_two_actors_of_one_thread_and_a_short_list_one_of_two() -> None:
    many = make_plan(settings(), 5000, 25_000_000, 2, 0, 16 * GB)
    assert (many.actors, many.threads, many.gpus_per_actor) == (2, 1, 0.0)
    few = make_plan(settings(), 60, GB, 2, 0, 16 * GB)
    assert (few.actors, few.threads) == (1, 2)
    assert make_plan(settings(), 60, 25_000_000, 2, 0, 16 * GB).threads == 1  # too small a model to share


def test_threads_never_exceed_the_cores() -> None:
    for cores in (1, 2, 3, 8, 64):
        for actors in (None, 1, 2, 5):
            plan = make_plan(settings(actors=actors), 10_000, 10**8, cores, 0, 64 * GB)
            assert plan.actors * plan.threads <= max(cores, plan.actors)


def test_a_model_as_large_as_memory_gets_one_actor() -> None:
    assert make_plan(settings(), 5000, 14 * GB, 16, 0, 32 * GB).actors == 1


def test_one_actor_a_gpu_and_decoders_from_the_cores() -> None:
    plan = make_plan(settings(), 100_000, 14 * GB, 64, 8, 500 * GB)
    assert (plan.actors, plan.gpus_per_actor) == (8, 1.0)
    assert plan.decode_actors * plan.decoder_workers >= 32
    assert make_plan(settings(device="cpu"), 100_000, GB, 64, 8, 500 * GB).gpus_per_actor == 0.0


def test_what_the_user_says_is_taken() -> None:
    plan = make_plan(settings(actors=3, decoders=5, batch_size=7), 10, GB, 2, 0, GB)
    assert (plan.actors, plan.batch_size) == (3, 7)
    assert plan.decode_actors * plan.decoder_workers >= 5


def test_a_cluster_too_small_to_ever_start_is_refused() -> None:
    plan = make_plan(settings(actors=4), 1000, GB, 4, 0, 64 * GB)
    check_fits(plan, Resources(5, 0, GB, own=False))
    with pytest.raises(
        SettingsError, match=r"has 4 CPUs and 0 GPUs, and 4 model actors with 1 decoding actors need at least 4.5 CPUs"
    ):
        check_fits(plan, Resources(4, 0, GB, own=False))
    joined = make_plan(settings(), 10_000, GB, 2, 0, 64 * GB, own=False)
    assert (joined.actors, joined.threads) == (1, 1)
    check_fits(joined, Resources(2, 0, GB, own=False))


def test_a_cluster_that_grows_begins_with_what_has_room() -> None:
    """Eight GPUs that an autoscaler may bring, none of them up yet; then a cluster with room for all."""
    growing = planning.make_plan(
        settings(device="cuda", actors=8), 10_000, GB, Resources(128, 8, GB, own=False, free=(0, 0))
    )
    assert (growing.actors, growing.first_actors, growing.elastic) == (8, 1, True)
    pool = actor_pool(Stage("any", object, gpus=1.0).planned(growing))
    assert (pool.min_size, pool.max_size, pool.initial_size) == (1, 8, 1)
    there = planning.make_plan(settings(actors=2), 10_000, GB, Resources(12, 0, GB, own=False, free=(12, 0)))
    assert (there.first_actors, there.elastic) == (2, False)
    fixed = actor_pool(Stage("any", object, gpus=1.0).planned(there))
    assert fixed.min_size == fixed.max_size == 2
