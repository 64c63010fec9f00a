"""The JSON API: rows found, one row with all that is known of it, what is said of it, and questions about it."""

from __future__ import annotations

import asyncio
import base64
import re
import tempfile
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from mats_core.audio.file import AudioError
from mats_core.errors import SettingsError, StorageError
from pipelines.output.corrections import OF_OWN_TEXT, Conflict, Correction, own_text
from pipelines.pages.media import SAMPLE_RATE, spectrogram_webp
from pipelines.serve import finding
from pipelines.serve.answering import Answerer, Asked, Busy, check_asked
from pipelines.serve.finding import Finder
from pipelines.serve.runs import Served, plain_message
from pipelines.serve.sounds import LONGEST_S, Sounds

_ENDING = re.compile(r"[a-z0-9]{1,5}")


@dataclass
class State:
    """What the application works on. answerer: None where nothing can be asked, and `silent_why`; user: what a
    correction's author is called where the page knows no better; upload: (bytes, seconds) of a sound, None without the
    demo."""

    runs: list[Served]
    finder: Finder
    sounds: Sounds
    answerer: Answerer | None = None
    silent_why: str = ""
    user: str = ""
    upload: tuple[int, float] | None = None
    checked: set[tuple[int, int]] = field(default_factory=set)
    loading: threading.Thread | None = None

    def find(self, run: int, row: int) -> tuple[Served, dict[str, Any]]:
        """A run and a row of it; HTTPException 404 where there is none."""
        served = self.runs[run] if 0 <= run < len(self.runs) else None
        found = served.row(row) if served else None
        if served is None or found is None:
            raise HTTPException(404, "there is no such row")
        return served, found

    def plain(self, message: str) -> str:
        """A message as anybody may read it."""
        return plain_message(message, [folder for served in self.runs for folder in served.folders])


class Change(BaseModel, extra="forbid"):
    """What is said of a row. Only what is given is changed."""

    seen: int = Field(ge=0, description="`version` of the row when it was looked at; another one since is a conflict.")
    by: str = Field(description="Who says it.")
    text: str | None = Field(None, description="The right text; null takes the run's own.")
    labels: list[str] | None = Field(None, description="Labels of the sound; null takes them away.")
    mark: str | None = Field(None, description="right, wrong or null.")


class Undo(BaseModel, extra="forbid"):
    """Takes back the newest change."""

    seen: int = Field(ge=0)
    by: str


class Question(BaseModel, extra="forbid"):
    """What is asked of a sound."""

    task: str = Field(
        "", description="caption, cla_label, music_caption or QA (default: QA where there is a question)."
    )
    question: str | None = None
    start_s: float | None = Field(None, ge=0, description="Only from here on, in seconds of the file …")
    end_s: float | None = Field(None, ge=0, description="… up to here.")


def described(number: int, served: Served, row: dict[str, Any], window: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row as the API tells it: as it counts now. The model's own are `answer` and, where it has its details,
    `answer_segments`."""
    newest = served.corrections.newest(row["row_id"])
    said = newest if newest is not None and newest.says_something and newest.belongs_to(row) else None
    where = f"{number}/{row['row_id']}"
    told = {name: value for name, value in row.items() if name != "uri"}
    if "segments" in row:
        told["answer_segments"] = row["segments"]
    told["error_message"] = plain_message(row["error_message"], served.folders) if row["error_message"] else None
    if said and said.text is not None:
        told |= {name: None for name in OF_OWN_TEXT if name in told}
    seconds = row["decoded_s"] or row["duration_s"]
    return told | {
        "run": number,
        "name": served.name(row["uri"]),
        "version": newest.version if newest else 0,
        "text": said.text if said and said.text is not None else row["text"],
        "answer": own_text(row),
        "shown_s": min(seconds, LONGEST_S) if seconds else None,
        "correction": spoken(said) if said else None,
        "window": window and {name: window[name] for name in ("start_s", "end_s", "score", "by")},
        "audio": f"/audio/{where}.wav",
        "picture": f"/picture/{where}.webp",
        "file": f"/file/{where}",
    }


def spoken(each: Correction) -> dict[str, Any]:
    """A correction as the API tells it."""
    names = ("version", "action", "text", "labels", "mark", "by")
    return {name: getattr(each, name) for name in names} | {"at": each.when}


def routes(state: State) -> APIRouter:
    """The routes below /api."""
    api = APIRouter(prefix="/api", tags=["rows"])

    @api.get("/runs", summary="The runs that are served")
    def list_runs() -> list[dict[str, Any]]:
        return [
            {"run": number, "name": each.label, "rows": each.catalog.rows, "values": each.catalog.values,
             "sound": each.opened is not None}
            for number, each in enumerate(state.runs)
        ]  # fmt: skip

    @api.get("/rows", summary="Find rows, a page at a time")
    def find_rows(query: Annotated[finding.Query, Query()]) -> dict[str, Any]:
        found = state.finder.page(query)
        rows = [described(number, state.runs[number], row, window) for number, row, window in found.rows]
        return {"rows": rows, "next": found.next, "total": found.total}

    @api.get("/rows/{run}/{row}", summary="One row: segments, neighbours, what was said of it")
    def one_row(run: int, row: int) -> dict[str, Any]:
        return whole(state, run, row)

    @api.post("/rows/{run}/{row}/correct", summary="Say something of a row", responses={409: _CONFLICT})
    def correct(run: int, row: int, change: Change) -> dict[str, Any]:
        given = {name: getattr(change, name) for name in change.model_fields_set & {"text", "labels", "mark"}}
        if not given:
            raise HTTPException(422, "nothing is said: give text, labels or mark")
        return write(state, run, row, lambda made, whole: made.correct(whole, change.seen, change.by, given))

    @api.post("/rows/{run}/{row}/undo", summary="Take back the newest change of a row", responses={409: _CONFLICT})
    def undo(run: int, row: int, change: Undo) -> dict[str, Any]:
        return write(state, run, row, lambda made, whole: made.undo(whole, change.seen, change.by))

    @api.post("/rows/{run}/{row}/ask", summary="Ask the model about a row's sound")
    async def ask(run: int, row: int, question: Question) -> dict[str, Any]:
        _, found = await run_in_threadpool(state.find, run, row)
        answerer = await ready(state)
        task, text = checked(answerer, question.task, question.question)
        start, seconds = stretch_of(found, question)
        stretch = partial(state.sounds.stretch, found["uri"], start, seconds, answerer.rate, found["only_channel"])
        heard = await run_in_threadpool(stretch)
        (answer,) = await answers(state, answerer, [Asked(heard.samples, start, task, text)])
        return answer | {"task": task, "question": text, "start_s": start, "end_s": start + heard.decoded_s}

    if state.upload is not None:
        _add_demo(api, state, state.upload[1])
    return api


_CONFLICT = {"description": "Somebody else changed the row since it was looked at: the row as it is now."}


def whole(state: State, run: int, row: int) -> dict[str, Any]:
    """A row with its details and history."""
    served, _ = state.find(run, row)
    served.said()  # what other servers wrote
    found = served.whole(row)
    assert found is not None
    history = [spoken(each) for each in served.corrections.about(found)]
    return described(run, served, found) | {"history": history}


def write(state: State, run: int, row: int, say: Any) -> dict[str, Any]:
    """Say something of a row; the row as it is then. HTTPException 409 with the row as it is, 422 with why not."""
    served, _ = state.find(run, row)
    found = served.whole(row)
    assert found is not None
    try:
        say(served.corrections, found)
    except Conflict:
        served.look()
        raise HTTPException(409, described(run, served, found)) from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    served.take(row)
    return described(run, served, found)


def stretch_of(row: dict[str, Any], question: Question) -> tuple[float, float]:
    """(start, seconds) of what is asked about, within the row and no longer than LONGEST_S. HTTPException 422 for what
    lies outside."""
    first = row.get("start_s") or 0.0
    last = first + (row.get("decoded_s") or row.get("duration_s") or LONGEST_S)
    start = first if question.start_s is None else question.start_s
    end = last if question.end_s is None else min(question.end_s, last)
    if not first <= start < end:
        raise HTTPException(422, f"the row is heard from {first:g} to {last:g} s")
    return start, min(end - start, LONGEST_S)


async def ready(state: State) -> Answerer:
    """The answerer once it is loaded. HTTPException 503 where there is none."""
    if state.answerer is None:
        raise HTTPException(503, state.silent_why or "nothing can be asked here")
    waiting: Future[None] = state.answerer.ready
    try:
        await asyncio.shield(asyncio.wrap_future(waiting))
    except Exception as error:
        problem = error.problem if isinstance(error, SettingsError) else type(error).__name__
        raise HTTPException(503, state.plain(f"the model cannot be loaded: {problem}")) from None
    return state.answerer


def checked(answerer: Answerer, task: str, question: str | None) -> tuple[str, str | None]:
    """A request that can be asked. HTTPException 422."""
    try:
        return check_asked(task, question, answerer.tasks)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def answers(state: State, answerer: Answerer, asked: list[Asked]) -> list[dict[str, Any]]:
    """The answers to all. HTTPException 503 where too much waits, 422 for a question that no prompt can hold."""
    try:
        waiting = [answerer.ask(each) for each in asked]
        return list(await asyncio.gather(*map(asyncio.wrap_future, waiting)))
    except Busy:
        raise HTTPException(503, "too many questions wait already; ask again in a moment") from None
    except SettingsError as error:
        raise HTTPException(422, state.plain(f"{error.problem}; {error.remedy}")) from None


def _add_demo(api: APIRouter, state: State, most_s: float) -> None:
    @api.post("/demo", tags=["demo"], summary="Ask about a sound that is sent", openapi_extra=_SOUND)
    async def demo(request: Request, task: str = "caption", question: str = "", ending: str = "") -> dict[str, Any]:
        answerer = await ready(state)
        task, text = checked(answerer, task, question)
        suffix = f".{ending}" if _ENDING.fullmatch(ending) else ""
        with tempfile.NamedTemporaryFile(prefix="mats-demo-", suffix=suffix) as file:
            async for block in request.stream():
                file.write(block)
            file.flush()
            asked, heard, picture = await run_in_threadpool(hear, state.sounds, file.name, answerer, most_s)
        said = await answers(state, answerer, [Asked(samples, start, task, text) for start, samples in asked])
        told = [{"start_s": start, **answer} for (start, _), answer in zip(asked, said, strict=True)]
        seconds, complete = heard
        return {"task": task, "question": text, "answers": told, "heard_s": seconds, "complete": complete,
                "picture": picture}  # fmt: skip


_SOUND = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


def hear(
    sounds: Sounds, path: str, answerer: Answerer, most_s: float
) -> tuple[list[tuple[float, np.ndarray]], tuple[float, bool], str]:
    """((start, samples) of each chunk of the first `most_s` seconds of a file, (seconds heard, whether that is all of
    it), the picture of the first as base64). Raises AudioError."""
    chunks: list[tuple[float, np.ndarray]] = []
    seconds, start, more = 0.0, 0.0, True
    while more and start < most_s:
        wanted = min(answerer.chunk_s, most_s - start)
        try:
            found = sounds.stretch(path, start, wanted + 0.5, answerer.rate)  # a little more, to see whether there is
        except AudioError:
            if not chunks:
                raise
            more = False
            break
        size = round(wanted * answerer.rate)
        more = len(found.samples) > size
        chunks.append((start, found.samples[:size]))
        seconds += min(wanted, found.decoded_s)
        start += wanted
    first = sounds.stretch(path, 0.0, answerer.chunk_s, SAMPLE_RATE)
    return chunks, (seconds, not more), base64.b64encode(spectrogram_webp(first.samples)).decode()


def refused(error: Exception, state: State) -> tuple[int, dict[str, Any]]:
    """(status, body) of an error of ours, without a path of this machine."""
    if isinstance(error, SettingsError):
        return 422, {"detail": state.plain(error.problem), "remedy": state.plain(error.remedy)}
    code = error.code if isinstance(error, (AudioError, StorageError)) else "io_error"
    message = error.message if isinstance(error, AudioError) else "it cannot be read"
    return (404 if code == "not_found" else 422), {"detail": f"{code}: {state.plain(message)}", "code": code}
