"""How a run shares out cores, GPUs and memory, and what it measures of itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from mats_core.errors import SettingsError
from pipelines.cluster import session as ray_runtime
from pipelines.cluster.meter import Meter
from pipelines.cluster.session import Plan, Resources, check_answers, check_device, check_fits
from pipelines.settings.archive import CaptionSettings, RunSettings, build
from pipelines.settings.text import EmbedTextSettings

GB = 10**9


def settings(**given: object) -> RunSettings:
    return RunSettings(input="in", output="out", **given)  # type: ignore[arg-type]


def make_plan(given: RunSettings, rows: int, size: int, cpus: int, gpus: int, memory: int, own: bool = True) -> Plan:
    return ray_runtime.make_plan(given, rows, size, Resources(cpus, gpus, memory, own))


def test_two_cores_get_two_actors_of_one_thread_and_a_short_list_one_of_two() -> None:
    many = make_plan(settings(), 5000, 25_000_000, 2, 0, 16 * GB)
    assert (many.actors, many.threads, many.gpus_per_actor) == (2, 1, 0.0)
    few = make_plan(settings(), 60, 25_000_000, 2, 0, 16 * GB)
    assert (few.actors, few.threads) == (1, 2)


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


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_answers(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(SettingsError, match=r"address: got .*allowed: a Ray cluster that answers"):
            check_answers(address)
    check_answers("auto")  # Ray's to find


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no CUDA device"):
        check_device("cuda:0", None)
    check_device("auto", None)
    check_device("cuda", "10.0.0.1:6379")  # the cluster's
    monkeypatch.setenv(ray_runtime.IN_A_JOB, "{}")
    check_device("cuda", None)


def test_a_cluster_too_small_to_ever_start_is_refused() -> None:
    plan = make_plan(settings(actors=4), 1000, GB, 4, 0, 64 * GB)
    check_fits(plan, Resources(5, 0, GB, own=False))
    with pytest.raises(SettingsError, match=r"at least 4.5 CPUs"):
        check_fits(plan, Resources(4, 0, GB, own=False))
    joined = make_plan(settings(), 10_000, GB, 2, 0, 64 * GB, own=False)
    assert (joined.actors, joined.threads) == (1, 1)
    check_fits(joined, Resources(2, 0, GB, own=False))


def test_a_cluster_that_grows_begins_with_what_has_room() -> None:
    """Eight GPUs that an autoscaler may bring, none of them up yet; then a cluster with room for all."""
    growing = ray_runtime.make_plan(
        settings(device="cuda", actors=8), 10_000, GB, Resources(128, 8, GB, own=False, now=(0, 0))
    )
    assert (growing.actors, growing.first_actors, growing.elastic) == (8, 1, True)
    pool = ray_runtime.pool(growing.actors, growing.first_actors, growing.elastic)
    assert (pool.min_size, pool.max_size, pool.initial_size) == (1, 8, 1)
    there = ray_runtime.make_plan(settings(actors=2), 10_000, GB, Resources(12, 0, GB, own=False, now=(12, 0)))
    assert (there.first_actors, there.elastic) == (2, False)
    assert ray_runtime.pool(2, 2, False).min_size == ray_runtime.pool(2, 2, False).max_size == 2


def test_inside_a_ray_job_its_own_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def joined(address: str, **_: object) -> None:
        raise ConnectionError(f"asked for {address}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", joined)
    monkeypatch.setenv(ray_runtime.IN_A_JOB, "{}")
    with pytest.raises(SettingsError, match="asked for auto"), ray_runtime.ray_session(None):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": -1}, "batch_size: got -1"),
        ({"max_error_rate": 2}, "max_error_rate: got 2"),
        ({"colour": "red"}, "colour: got"),
        ({"actors": "many"}, 'actors: got "many"'),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_given(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build(CaptionSettings, {"input": "a", "output": "b", **given})


def block(rows: int, decoded: float, began: float, ready: float) -> pa.Table:
    return pa.table(
        {
            "row_id": list(range(rows)),
            "decoded_s": [5.0] * rows,
            "_decode_s": [0.2] * rows,
            "_decode_cpu_s": [0.1] * rows,
            "_embed_s": [0.5] * rows,
            "_answer_s": [1.0] * rows,
            "_decoded_at": [decoded] * rows,
            "_began_at": [began] * rows,
            "_ready_at": [ready] * rows,
        }
    )


def test_the_steady_rate_by_hand() -> None:
    meter = Meter()
    assert meter.take(block(10, decoded=90, began=95, ready=95)).schema.names == ["row_id", "decoded_s"]
    meter.take(block(10, decoded=96, began=100, ready=100))  # the last actor is ready at 100
    meter.take(block(10, decoded=101, began=103, ready=95))
    assert meter.batch_fill is None
    assert meter.seconds == pytest.approx({"decode_s": 6.0, "embed_s": 15.0, "answer_s": 30.0})
    # 20 rows began at 100 or later; 10 of them were decoded before: 1 s of the CPU, 0.5 s of two cores
    assert meter.steady(ended=109.5, cores=2) == {
        "rows": 20,
        "seconds": 10.0,
        "rows_per_s": 2.0,
        "real_time_factor": 10.0,
    }


def test_relative_paths_are_the_users_not_the_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    joined = build(CaptionSettings, {"input": "in", "output": "out", "model": "mine", "address": "auto"})
    assert (joined.input, joined.output, joined.model) == tuple(str(tmp_path / n) for n in ("in", "out", "mine"))
    kept = {"input": "s3://b/in", "output": "file:///o", "model": "builtin"}
    assert build(CaptionSettings, {**kept, "address": "auto"}).model_dump(include=set(kept)) == kept
    assert build(CaptionSettings, {"input": "in", "output": "out"}).output == "out"  # shown as it was typed
    text = build(EmbedTextSettings, {"corpora": ["a*.csv"], "output": "o", "encoder": "hf:x", "address": "auto"})
    assert (text.corpora, text.encoder) == ([str(tmp_path / "a*.csv")], "hf:x")


@pytest.mark.processes
def test_sigterm_stays_the_commands_own() -> None:
    """A stopped pod keeps what is answered: Ray's handler would end the process with nothing written."""
    script = """
import os, signal
from pipelines.cluster.session import ray_session

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, stop)
try:
    with ray_session(None):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
