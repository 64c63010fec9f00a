"""A made-up run with sounds, and the application over it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipelines.serve.answering import Asked, Busy
from pipelines.serve.api import State
from pipelines.serve.finding import Finder
from pipelines.serve.runs import open_served
from pipelines.serve.sounds import Sounds
from tests.pipelines.pages.made_up import error, row, tone, wav, write_run

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'odd'\nline ü.wav"


class Echo:
    """Answers with what it was asked, at once."""

    rate, chunk_s, tasks = 16_000, 10.0, ("caption", "QA")

    def __init__(self) -> None:
        self.ready: Future[None] = Future()
        self.ready.set_result(None)
        self.asked: list[Asked] = []
        self.busy = False

    def ask(self, asked: Asked) -> Future[dict[str, Any]]:
        """See `Answerer`."""
        if self.busy:
            raise Busy
        self.asked.append(asked)
        future: Future[dict[str, Any]] = Future()
        text = f"{asked.task}: {asked.question or '-'}, {len(asked.samples) / self.rate:.1f} s"
        near = [{"caption": "A dog.", "source": "memory", "weight": 0.5, "score": 0.9}]
        future.set_result({"text": text, "neighbors": near, "confidence": 0.25, "silent": False})
        return future

    def close(self) -> None:
        """See `Answerer`."""


def made_rows(folder: Path) -> list[dict[str, Any]]:
    """Four rows: three sounds, one with a hostile name, and one that failed."""
    segments = [{"start_s": 0.0, "end_s": 1.0, "text": "a low tone"}, {"start_s": 1.0, "end_s": 2.0, "text": "more"}]
    near = [{"row": 1, "caption": "A <b>tone</b>.", "source": "s", "weight": 0.7, "score": 0.8}]
    facts = {"duration_s": 2.0, "decoded_s": 2.0, "confidence": 0.8, "segments": segments, "neighbors": near}
    return [
        row(0, wav(folder / "a" / "low.wav", tone(220, 2)), text="A low tone.", **facts),
        row(1, wav(folder / HOSTILE, tone(880, 2)), text="A high <i>tone</i>.", **{**facts, "confidence": 0.2}),
        row(
            2,
            wav(folder / "b.wav", tone(440, 2)),
            task="QA",
            question="Rain?",
            text="no",
            **{**facts, "confidence": None},
        ),
        error(3, str(folder / "gone.wav"), "not_found", f"there is no {folder}/gone.wav"),
    ]


def made_state(tmp_path: Path, **facts: Any) -> State:
    """A state over a run of `made_rows`."""
    run = tmp_path / "run"
    if not run.exists():
        write_run(run, made_rows(tmp_path / "in"))
    served = [open_served(str(run))]
    return State(served, Finder(served), Sounds(), **{"answerer": Echo(), "user": "ann", **facts})
