"""The model as Ray Serve has it: copies on a cluster, each of which answers together what came at the same time.

Needs `ray[serve]`. The server decodes; a replica is given samples, so that it opens no file. Serve's HTTP stays off.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from mats_core.audio.windows import chunk_seconds
from mats_core.errors import SettingsError, first_line
from pipelines.cluster.session import ray_session
from pipelines.serve.answering import AT_ONCE, MOST_WAITING, Asked, Busy, answer_all, tasks_of

WAIT_S = 0.02
"""How long a replica waits for more to answer together."""
PATIENCE_S = 600.0


class Replica:
    """A model that answers batches."""

    def __init__(self, model: str, device: str, allow_parts: Sequence[str]) -> None:
        from mats_core import load_model

        self.model = load_model(model, device, allow_parts=tuple(allow_parts))

    def facts(self) -> tuple[int, float, tuple[str, ...]]:
        """See `Answerer`: rate, chunk_s, tasks."""
        encoder: Any = self.model.encoder
        return encoder.sample_rate, chunk_seconds(encoder.window_seconds), tasks_of(self.model)

    def answers(self, asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """The answers to all, in order; `wrong` or `failed` with why, in the place of one that there is not."""
        return [_plain(each) for each in answer_all(self.model, asked)]


def _plain(said: dict[str, Any] | Exception) -> dict[str, Any]:
    if isinstance(said, SettingsError):
        return {"wrong": (said.setting, said.problem, said.remedy)}
    return {"failed": f"{type(said).__name__}: {first_line(said)}"} if isinstance(said, Exception) else said


class Replicas:
    """As `answering.Here`, on the cluster at `address`. Raises SettingsError where there is none, or no Ray Serve."""

    def __init__(self, model: str, address: str, count: int, device: str, allow_parts: Sequence[str]) -> None:
        self.ready: Future[None] = Future()
        self._waiting, self._lock = 0, threading.Lock()
        self._pool = ThreadPoolExecutor(MOST_WAITING, thread_name_prefix="mats-serve-ask")
        self._name = f"mats-serve-{uuid.uuid4().hex[:8]}"
        self._stack = ExitStack()
        resources = self._stack.enter_context(ray_session(address))
        try:
            self._serve: Any = ray_serve()
            gpus = 1.0 if resources.gpus and device != "cpu" else 0.0
            self._handle = self._deploy(model, count, device, allow_parts, gpus)
            self.rate, self.chunk_s, self.tasks = self._handle.facts.remote().result(timeout_s=PATIENCE_S)
        except BaseException:
            self.close()
            raise
        self.ready.set_result(None)

    def _deploy(self, model: str, count: int, device: str, allow_parts: Sequence[str], gpus: float) -> Any:
        serve = self._serve

        class Batching(Replica):
            """A replica whose questions wait a moment for one another."""

            @serve.batch(max_batch_size=AT_ONCE, batch_wait_timeout_s=WAIT_S)
            async def ask(self, asked: list[Asked]) -> list[dict[str, Any]]:
                """The answers to what came together."""
                return self.answers(asked)

        options = {"num_cpus": 1.0, "num_gpus": gpus}
        made = serve.deployment(
            Batching, name="model", num_replicas=count, ray_actor_options=options, max_ongoing_requests=2 * AT_ONCE
        )
        serve.start(proxy_location="Disabled")
        return serve.run(made.bind(model, device, list(allow_parts)), name=self._name, route_prefix=None)

    def ask(self, asked: Asked) -> Future[dict[str, Any]]:
        """See `Answerer`."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise Busy
            self._waiting += 1
        return self._pool.submit(self._ask, asked)

    def _ask(self, asked: Asked) -> dict[str, Any]:
        try:
            said: dict[str, Any] = self._handle.ask.remote(asked).result(timeout_s=PATIENCE_S)
        finally:
            with self._lock:
                self._waiting -= 1
        if "wrong" in said:
            raise SettingsError(*said["wrong"])
        if "failed" in said:
            raise RuntimeError(said["failed"])
        return said

    def close(self) -> None:
        """See `Answerer`. The copies go; what else Ray Serve has on the cluster stays."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):
            self._serve.delete(self._name)
        self._stack.close()


def ray_serve() -> Any:
    """The package `ray.serve`. Raises SettingsError where it is not installed."""
    try:
        from ray import serve
    except ImportError as error:
        problem = f"it is asked through Ray Serve, and {error.name or 'a part of it'} is not installed"
        raise SettingsError("address", problem, 'pip install "ray[serve]", or leave out --address') from None
    return serve
