"""The answers of an evaluation, made by the captioning pipeline: what is asked, one list for all data sets.

    items ─▶ asked.parquet ─▶ run_caption ─▶ cells/run/answers                   one cell, every sound asked once
    items ─▶ sounds.parquet ─▶ run_embed_audio ─▶ heard/ ─▶ asked/ ─▶ run_caption, cell by cell        otherwise

A sound is decoded and embedded once, however many questions, orders of options and cells there are.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.scoring import choices
from pipelines.archive.caption import run_caption
from pipelines.archive.embed_audio import run_embed_audio
from pipelines.archive.run import RunResult
from pipelines.cluster.progress import Progress
from pipelines.data import generations, parquet
from pipelines.data.embeddings import copy_facts, list_parts
from pipelines.evaluate.datasets import LoadedSet
from pipelines.settings.archive import EmbedSettings
from pipelines.settings.base import build
from pipelines.settings.evaluate import RUN_FIELDS, Cell, EvaluateSettings

ASKED_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("uri", "task", "question", "tag", "benchmark", "item")),
        ("order", pa.int32()),
        *((name, pa.float64()) for name in ("start_s", "end_s")),
        ("only_channel", pa.int64()),
    ]
)
_STRETCH = ("uri", "start_s", "end_s", "only_channel")
SOUNDS_SCHEMA = pa.schema([*map(ASKED_SCHEMA.field, _STRETCH), ("sound", pa.int64())])
"""The stretches that are embedded; `sound` numbers them, and goes with what is heard of each."""
_ANSWER_COLUMNS = [
    *("benchmark", "item", "order", "uri", "version", "start_s"),
    *("text", "decoded_s", "embedding", "error_code", "error_message"),
]
_NEWER = ("confidence",)  # columns that older answers lack
HEARD = "heard"
"""The run that only embeds the sounds, and its folder in OUT."""

QUESTION_ROWS = 4096
"""Rows in one file of questions put to stored embeddings."""


@dataclass
class ItemAnswer:
    """What the model answered to one item: a text an order of the options, None where it failed. embedding: float32
    [D], unit, of the sound before the bridge; None where no chunk was answered. seconds: how much of the sound was
    decoded. error: why there is no answer, "" where there is one. confidence: of each text, None where it has none;
    of a sound's joined captions the least."""

    texts: list[str | None] = field(default_factory=list)
    embedding: np.ndarray | None = None
    seconds: float = 0.0
    error: str = ""
    confidence: list[float | None] = field(default_factory=list)


def asked_rows(data_sets: Sequence[LoadedSet], orders: int, seed: int) -> list[dict[str, Any]]:
    """One row an item, and of items with options one for each order they are shown in; `start_s`, `end_s` and
    `only_channel` where not all of the sound is meant."""
    rows = []
    for data in data_sets:
        for item in data.items:
            for order in range(orders if item.choices else 1):
                question = item.question
                if item.choices:
                    question = choices.ask(question, choices.order(item.choices, seed + order, item.item_id))
                uri = item.uri if "://" in item.uri else os.path.abspath(item.uri)
                asked = {"uri": uri, "task": item.task, "question": question or None}
                of = {"tag": item.tag or None, "benchmark": data.name, "item": item.item_id, "order": order}
                stretch = {"start_s": item.start_s or None, "end_s": item.end_s, "only_channel": item.only_channel}
                rows.append({**asked, **of, **{name: at for name, at in stretch.items() if at is not None}})
    return rows


def _sound_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What of which file a row asks about: its _STRETCH."""
    return tuple(map(row.get, _STRETCH))


def make_answers(
    settings: EvaluateSettings, data_sets: Sequence[LoadedSet], grid: Sequence[Cell],
    progress: Callable[[str, Progress], None],
) -> dict[str, RunResult]:  # fmt: skip
    """Run every cell to its end; cell name → its result. Stops at the first that is not complete.

    Where the sounds must be embedded first and that run did not end, the result is that of HEARD alone.
    """
    rows = asked_rows(data_sets, settings.orders, settings.seed)
    schemes = sorted({storage.scheme(row["uri"]) or "file" for row in rows})
    distinct = list(dict.fromkeys(map(_sound_of, rows)))
    shifted = any(cell.changes.get("bridge", settings.bridge) == "mean-shift" for cell in grid)
    asked = storage.join(settings.out, "asked.parquet")
    if len(distinct) == len(rows) and len(grid) == 1 and not shifted:
        parquet.write(asked, pa.Table.from_pylist(rows, schema=ASKED_SCHEMA))
    else:
        sounds, heard = storage.join(settings.out, "sounds.parquet"), storage.join(settings.out, HEARD)
        listed = [dict(zip(SOUNDS_SCHEMA.names, (*each, number), strict=True)) for number, each in enumerate(distinct)]
        parquet.write(sounds, pa.Table.from_pylist(listed, schema=SOUNDS_SCHEMA))
        wanted = {*RUN_FIELDS, "model", "allow_parts", "overwrite"}
        shared = settings.model_dump(include=wanted & set(EmbedSettings.model_fields))
        embed = build(EmbedSettings, {**shared, "input": sounds, "output": heard, "schemes": schemes})
        done = run_embed_audio(embed, partial(progress, HEARD))
        if done.status not in ("complete", "complete_before"):
            return {HEARD: done}
        asked = storage.join(settings.out, "asked")
        _ask_embeddings(heard, asked, rows, {each: number for number, each in enumerate(distinct)})
    results: dict[str, RunResult] = {}
    for cell in grid:
        given = settings.caption_settings(
            input=asked, output=cell_folder(settings.out, cell), schemes=schemes, with_embedding=True, **cell.changes
        )
        results[cell.name] = run_caption(given, partial(progress, cell.name))
        if results[cell.name].status not in ("complete", "complete_before"):
            break
    return results


def cell_folder(out: str, cell: Cell) -> str:
    """Where a cell's captioning run is."""
    return storage.join(out, "cells", cell.name)


def _ask_embeddings(heard: str, asked: str, rows: list[dict[str, Any]], numbers: dict[tuple[Any, ...], int]) -> None:
    """Put every question to its sound's stored embeddings: a data set of embeddings that `mats caption` takes.

    numbers: the `sound` of what rows ask about, as the list of sounds had it.
    """
    by_sound: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_sound[numbers[_sound_of(row)]].append(row)
    added = [name for name in ASKED_SCHEMA.names if name not in SOUNDS_SCHEMA.names]
    storage.remove_tree(asked)
    waiting: list[pa.Table] = []
    parts = 0

    def write(least: int) -> None:
        nonlocal parts
        if sum(len(table) for table in waiting) > least:
            parquet.write(storage.join(asked, "embeddings", f"part-{parts:06d}.parquet"), pa.concat_tables(waiting))
            waiting.clear()
            parts += 1

    for info in list_parts(heard):
        table = parquet.read(info.uri)
        pairs = [(place, row) for place, sound in enumerate(table["sound"].to_pylist()) for row in by_sound[sound]]
        own = ("task", "question", "tag", "row_id", "run_id", "sound")
        table = table.drop_columns([name for name in own if name in table.schema.names])
        for start in range(0, len(pairs), QUESTION_ROWS):
            places, questions = zip(*pairs[start : start + QUESTION_ROWS], strict=True)
            put = pa.Table.from_pylist(questions, schema=ASKED_SCHEMA)
            part = table.take(pa.array(places, pa.int64()))
            for name in added:
                part = part.append_column(name, put[name])
            waiting.append(part)
            write(QUESTION_ROWS)
    write(0)
    copy_facts(heard, asked)


def read_answers(folder: str, data_sets: Sequence[LoadedSet]) -> dict[str, list[ItemAnswer]]:
    """Name of a data set → an answer an item, in the order of its items, out of a cell's folder.

    Of a sound longer than a minute the minutes' captions are joined; a label or choice is the first minute's.
    Raises SettingsError where an item has answers to two sounds, or to two versions of one.
    """
    files = generations.files(storage.join(folder, "answers"))
    chunks: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for batch in (
        batch for info in files for batch in parquet.read(info.uri, _ANSWER_COLUMNS, _NEWER).to_batches(4096)
    ):
        for row in batch.to_pylist():
            chunks[row["benchmark"], row["item"], row["order"]].append(row)
    found: dict[str, list[ItemAnswer]] = {data.name: [] for data in data_sets}
    for data in data_sets:
        for item in data.items:
            answer = ItemAnswer()
            while rows := chunks.get((data.name, item.item_id, len(answer.texts))):
                sounds = {(row["uri"], row.get("version")) for row in rows}
                if len(sounds) > 1 or len({row["start_s"] or 0.0 for row in rows}) < len(rows):
                    where = f"{len(rows)} answers to {item.item_id} of {data.name}"
                    problem = f"{storage.public_uri(folder)} holds {where}, whose sound changed between them"
                    raise SettingsError("out", problem, "take another folder, or --overwrite")
                _add_order(answer, sorted(rows, key=lambda row: row["start_s"] or 0.0), data.definition.kind)
            found[data.name].append(answer)
    return found


def _add_order(answer: ItemAnswer, rows: list[dict[str, Any]], kind: str) -> None:
    """Add the answer to one order; rows are its chunks."""
    good = [row for row in rows if row["error_code"] is None and row["text"] is not None]
    if not good:
        answer.texts.append(None)
        answer.confidence.append(None)
        errors = [f"{row['error_code']}: {row['error_message']}" for row in rows if row["error_code"]]
        answer.error = errors[0] if errors else "no answer"
        return
    whole = kind in ("caption", "chat")
    answer.texts.append(" ".join(row["text"] for row in good) if whole else good[0]["text"])
    sure = [row.get("confidence") for row in (good if whole else good[:1])]
    known = [each for each in sure if each is not None]
    answer.confidence.append(min(known) if len(known) == len(sure) else None)
    answer.seconds = sum(row["decoded_s"] or 0.0 for row in rows)
    embedded = [(row["decoded_s"] or 1.0, row["embedding"]) for row in good if row["embedding"]]
    if embedded:
        total = np.sum([seconds * np.asarray(vector, np.float64) for seconds, vector in embedded], axis=0)
        answer.embedding = (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
