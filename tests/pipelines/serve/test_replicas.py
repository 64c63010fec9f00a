"""Replicas of Ray Serve answer as the model does here. A Ray and two copies of the model: a minute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.serve import replicas
from pipelines.serve.answering import Asked, Busy, Here
from pipelines.serve.replicas import Replica, Replicas

pytestmark = pytest.mark.processes


def asked(number: int) -> Asked:
    """A second of a tone, and what is asked of it."""
    samples = (9000 * np.sin(np.arange(48_000) * (number + 1) / 40)).astype(np.int16)
    return Asked(samples, 0.0, "QA", "Is there rain?") if number % 2 else Asked(samples, 0.0)


def same(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether answers are the same: texts to the letter, weights of neighbours but for how numbers are rounded."""
    for one, other in zip(some, others, strict=True):
        weights = [[near["weight"] for near in each["neighbors"]] for each in (one, other)]
        assert one["text"] == other["text"] and weights[0] == pytest.approx(weights[1], abs=1e-4)
    return True


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    found = Here("builtin", "cpu")
    found.ready.result(120)
    yield found
    found.close()


def test_what_waits_is_answered_together_and_as_each_alone(here: Here) -> None:
    waiting = [here.ask(asked(number)) for number in range(5)]
    together = [each.result(120) for each in waiting]
    assert same(together, [here.ask(asked(number)).result(120) for number in range(5)])
    assert all(each["text"] and each["neighbors"] for each in together)
    weights = [near["weight"] for near in together[0]["neighbors"]]
    assert weights == sorted(weights, reverse=True)


def test_a_question_that_no_prompt_can_hold_costs_no_other(here: Here) -> None:
    """960 characters are few enough to be asked, and 721 tokens: more than the 512 that the shipped LLM reads."""
    long = here.ask(Asked(asked(0).samples, 0.0, "QA", "why " * 240))
    good = here.ask(asked(0))
    assert good.result(120)["text"]
    with pytest.raises(SettingsError, match="the LLM was made for 512"):
        long.result(120)


def test_so_much_may_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.serve.answering.MOST_WAITING", 2)
    slow = Here("/no/such/model", "cpu")
    with pytest.raises(SettingsError):
        slow.ready.result(60)
    first = [slow.ask(asked(0)), slow.ask(asked(1))]
    with pytest.raises(Busy):
        slow.ask(asked(2))
    slow.close()
    assert all(each.cancelled() for each in first)


def test_without_ray_serve_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def imported(name: str, *rest: Any) -> Any:
        if name == "ray" and rest[2] == ("serve",):
            raise ImportError("no", name="grpc_reflection")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(SettingsError, match=r'grpc_reflection is not installed; pip install "ray\[serve\]"'):
        replicas.ray_serve()


@pytest.mark.long
def test_replicas_on_a_cluster_answer_as_the_model_here(here: Here) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed", exc_type=ImportError)
    ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False)
    try:
        far = Replicas("builtin", "auto", 2, "cpu", ())
        assert (far.rate, far.chunk_s, far.tasks) == (here.rate, here.chunk_s, here.tasks)
        waiting = [far.ask(asked(number)) for number in range(8)]
        alone = [here.ask(asked(number)).result(120) for number in range(8)]
        assert same([each.result(300) for each in waiting], alone)
        far.close()
    finally:
        ray.shutdown()


def test_a_replica_says_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica.__new__(Replica)  # without a model, whose answers are given
    replica.model = None  # type: ignore[assignment]
    said = [SettingsError("question", "too long", "ask less"), MemoryError("no room"), {"text": "Rain."}]
    monkeypatch.setattr(replicas, "answer_all", lambda model, asked: said)
    assert replica.answers([asked(0)] * 3) == [
        {"wrong": ("question", "too long", "ask less")}, {"failed": "MemoryError: no room"}, {"text": "Rain."},
    ]  # fmt: skip
