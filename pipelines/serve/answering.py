"""The model that is asked: loaded once, and asked by one thread, which takes together what waits.

What is asked is a sound in samples, so that the model opens no file. An answer does not depend on those beside it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mats_core.audio.windows import chunk_seconds
from mats_core.errors import SettingsError
from mats_core.model.prompts import TASKS

AT_ONCE, MOST_WAITING = 16, 128
MOST_QUESTION = 1000
"""Characters of a question."""


@dataclass(frozen=True)
class Asked:
    """A stretch of sound, int16 [T] mono at the model's rate, where it begins in its file, and what is asked of it."""

    samples: np.ndarray = field(repr=False)
    start_s: float
    task: str = "caption"
    question: str | None = None


class Busy(Exception):
    """So much waits already that nothing more is taken."""


class Answerer(Protocol):
    """A model here, or replicas elsewhere. ready: done when it is loaded, or with what that raised; then rate: Hz of
    the samples it takes, chunk_s: seconds that are answered together, tasks: what may be asked."""

    ready: Future[None]
    rate: int
    chunk_s: float
    tasks: tuple[str, ...]

    def ask(self, asked: Asked) -> Future[dict[str, Any]]:
        """The answer to come: text, neighbors, confidence (None where the model gives none), silent. Raises Busy."""

    def close(self) -> None:
        """Take nothing more."""


def check_asked(task: str, question: str | None, tasks: Sequence[str]) -> tuple[str, str | None]:
    """A request as it may be asked; ValueError for another one."""
    question = (question or "").strip() or None
    task = task or ("QA" if question else "caption")
    if task not in tasks:
        raise ValueError(f"a task is one of {', '.join(tasks)}")
    if task == "QA" and question is None:
        raise ValueError("what is the question?")
    if question is not None and len(question) > MOST_QUESTION:
        raise ValueError(f"a question has at most {MOST_QUESTION} characters")
    return task, question if task == "QA" else None


def answer_all(model: Any, asked: Sequence[Asked]) -> list[dict[str, Any] | Exception]:
    """The answers of a model, in order; the exception it ended with in the place of one."""
    from mats_core.model.asking import Request, ask_clips
    from mats_core.model.hearing.clips import embed_clips

    clips = embed_clips(model, [(each.start_s, each.samples) for each in asked], AT_ONCE)
    good = [at for at, clip in enumerate(clips) if not isinstance(clip, Exception)]
    requests = [Request(asked[at].task, asked[at].question) for at in good]
    heard: list[Any] = [clips[at] for at in good]
    said = iter(ask_clips(model, heard, requests, batch_size=AT_ONCE, explain=model.memory is not None))
    return [each if isinstance(each, Exception) else told(next(said)) for each in clips]


def told(answer: Any) -> dict[str, Any] | Exception:
    """An answer as plain values."""
    if isinstance(answer, Exception):
        return answer
    near = [
        {name: each.get(name) for name in ("caption", "source", "weight", "score")} for each in answer.neighbors or ()
    ]
    confidence = getattr(answer, "confidence", None)
    return {
        "text": answer.text,
        "neighbors": sorted(near, key=lambda each: -(each["weight"] or 0.0)),
        "confidence": None if confidence is None else float(confidence),
        "silent": bool(answer.silent),
    }


def tasks_of(model: Any) -> tuple[str, ...]:
    """What a model may be asked, in the order in which people choose."""
    return tuple(task for task in TASKS if task in model.config.tasks)


class Here:
    """The model in this process, loaded by its thread."""

    def __init__(self, model: str, device: str = "auto", allow_parts: Sequence[str] = ()) -> None:
        self.rate, self.chunk_s = 0, 0.0
        self.tasks: tuple[str, ...] = ()
        self._uri, self._device, self._allowed = model, device, tuple(allow_parts)
        self._waiting: queue.Queue[tuple[Asked, Future[dict[str, Any]]] | None] = queue.Queue(MOST_WAITING)
        self.ready: Future[None] = Future()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mats-serve-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> Future[dict[str, Any]]:
        """See `Answerer`."""
        future: Future[dict[str, Any]] = Future()
        if self._closed.is_set():
            raise Busy
        try:
            self._waiting.put_nowait((asked, future))
        except queue.Full:
            raise Busy from None
        return future

    def close(self) -> None:
        """See `Answerer`. What is worked on is ended."""
        self._closed.set()
        while True:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is not None:
                waiting[1].cancel()
        self._waiting.put(None)
        self._thread.join(30)

    def _work(self) -> None:
        try:
            from mats_core import load_model

            model = load_model(self._uri, self._device, allow_parts=self._allowed)
            if model.encoder is None:
                problem = f'"{self._uri}" has no encoder and cannot hear'
                raise SettingsError("model", problem, "choose one with an encoder, or say --model none")
            self.rate, self.tasks = model.encoder.sample_rate, tasks_of(model)
            self.chunk_s = chunk_seconds(model.encoder.window_seconds)
        except BaseException as error:
            if not isinstance(error, SettingsError):
                logging.getLogger(__name__).error("the model cannot be loaded", exc_info=error)
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < AT_ONCE and not self._waiting.empty():
                if (more := self._waiting.get()) is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            batch = [each for each in batch if each[1].set_running_or_notify_cancel()]
            try:
                said = answer_all(model, [asked for asked, _ in batch]) if batch else []
            except Exception as error:
                said = [error] * len(batch)
            for (_, future), answer in zip(batch, said, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
