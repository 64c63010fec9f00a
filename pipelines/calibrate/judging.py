"""What was judged: clips with a request each, and whether the model's answer is right, or how that is found out.

A table has a column `uri` and a column `correct`: a person's judgements, or those of `mats evaluate` in its
predictions. Anything else is an evaluation data set, whose answers are judged as `mats evaluate` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from mats_core import storage
from mats_core.audio.sources import Stretch
from mats_core.errors import SettingsError
from mats_core.model.prompts import task_name
from mats_core.scoring import METRICS, Item, Kind, Scores, choices, reached, score
from pipelines.data import parquet
from pipelines.data.lists import LIST_ENDINGS
from pipelines.evaluate.datasets import LoadedSet
from pipelines.evaluate.scores import by_its_sounds, right_of
from pipelines.sample.judgements import ROW, SAID, judgements, number_of, read_judged, said_in, whole_number
from pipelines.settings.evaluate import CalibrateSettings

Number = TypeVar("Number", int, float)
USUAL: dict[Kind, str] = {"caption": "cider_d", "label": "accuracy", "labels": "micro_f1", "choice": "accuracy"}
"""The metric that is computed to judge answers of a kind."""
A_PERSON = "a person"
_REMEDY = "give a table with the columns `uri` and `correct`, true or false"
_TYPED = (".parquet", ".jsonl", ".jsonl.gz")
"""Endings of tables in which a list is a list, and false is no word."""


@dataclass(frozen=True)
class Question:
    """A clip and what is asked of it. stretch: what of the file; right: a judgement of `text`, None where there is
    none, or the answer is judged when it is there."""

    uri: str
    task: str
    question: str | None = None
    tag: str | None = None
    stretch: Stretch = field(default_factory=Stretch)
    right: bool | None = None
    text: str | None = None


EmbedText = Callable[[list[str]], np.ndarray]
"""Texts → unit embeddings [N, D]."""
Judge = Callable[[Sequence[str | None], EmbedText], tuple[list[bool | None], str]]
"""Answers, in the order of the questions, None where there is none → right, wrong, or not to be told; and what that
means."""


def is_table(data: str) -> bool:
    """Whether SET names a table of judged clips, and no evaluation data set."""
    name = storage.public_uri(data).lower()
    return name.endswith((*LIST_ENDINGS, ".xlsx")) or storage.is_dir(data)


def read_questions(data: str, settings: CalibrateSettings) -> tuple[list[Question], str]:
    """The judged clips of a table, or of a folder of predictions; and how they were judged, in words.

    Raises SettingsError for a table without judgements, and for the predictions of several cells of a grid: theirs are
    answers of as many settings, of which a model has one.
    """
    if storage.is_dir(data):
        files = [each.uri for each in parquet.files(data)]
        if len(files) != 1:
            names = ", ".join(storage.public_uri(uri).rpartition("/")[2] for uri in files[:8])
            told = f"{len(files)} files of predictions ({names})" if files else "no Parquet files"
            remedy = "name the one whose settings are the model's own" if files else "name OUT/predictions"
            raise SettingsError("data", f"{storage.public_uri(data)} holds {told}", remedy)
        data = files[0]
    rows = read_judged(data, ("uri",), "data", _REMEDY)
    if any("metrics" in row for row in rows) and all(_empty(row.get("right")) for row in rows):
        if not (shown := storage.public_uri(data)).lower().endswith(_TYPED):
            problem = f"{shown} is a copy of predictions as text, which no longer tells what was found right"
            by_ear = "to judge them by ear, write yes or no into a column `right`"
            raise SettingsError("data", problem, f"give the Parquet file itself, or a copy in JSONL; {by_ear}")
        return _predictions(rows, settings)
    if not any(name in row for row in rows for name in SAID):
        problem = f"{storage.public_uri(data)} has neither a column `correct` nor is it predictions of `mats evaluate`"
        raise SettingsError("data", problem, "write true or false into a column `correct`, one a clip")
    said = judgements(said_in(rows), [row[ROW] for row in rows], settings.blank, "data")
    return [_question(row, right) for row, right in zip(rows, said, strict=True)], A_PERSON


def _predictions(rows: Sequence[Mapping[str, Any]], settings: CalibrateSettings) -> tuple[list[Question], str]:
    """Of first answers, as they were found right or wrong, or by a metric."""
    answered = [row for row in rows if row.get("text") is not None and not row.get("order")]
    name = settings.metric
    if name or settings.at_least is not None:
        known = [{each["name"]: each["value"] for each in row["metrics"] or ()} for row in answered]
        name = name or next((usual for usual in USUAL.values() if any(usual in values for values in known)), "")
        if not any(name in values for values in known):
            problem = f"the predictions have no {name or 'metric that judges answers'}"
            others = ", ".join(sorted({each for values in known for each in values})) or "none"
            raise SettingsError("metric", problem, f"choose one of: {others}")
        right, told = reached(name, [values.get(name) for values in known], settings.at_least)
    else:
        if not any("judged_by" in row for row in answered):
            remedy = "evaluate again, or say by which --metric"
            raise SettingsError("data", "the predictions do not say what makes an answer right", remedy)
        right = [row.get("correct") for row in answered]
        ways = dict.fromkeys(row["judged_by"] for row in answered if row["judged_by"])
        told = "; ".join(ways)
    return [_question(row, true) for row, true in zip(answered, right, strict=True)], told


def _question(row: Mapping[str, Any], right: bool | None) -> Question:
    uri, question = str(row["uri"] or ""), row.get("question") or None
    if not uri and right is not None:
        raise SettingsError("data", f"row {row[ROW]} names no file", "give its path or address in the column `uri`")
    if isinstance(row.get("choices"), str) and row["choices"]:
        problem = f"row {row[ROW]} holds its options as text in `choices`"
        raise SettingsError("data", problem, "give the Parquet file of the predictions, or a copy in JSONL")
    if row.get("choices"):
        question = choices.ask(question or "", row["choices"])
    task = task_name(row.get("task") or ("QA" if question else "caption"))
    text = None if _empty(row.get("text")) else str(row["text"])
    return Question(uri, task, question, row.get("tag") or None, _stretch(row), right, text)


def _stretch(row: Mapping[str, Any]) -> Stretch:
    """What of its file a row means."""

    def told(name: str, read: Callable[[Any], Number | None], remedy: str) -> Number | None:
        value = row.get(name)
        found = None if _empty(value) else read(value)
        if found is None and not _empty(value):
            raise SettingsError("data", f"row {row[ROW]} says {value!r:.40} in `{name}`", remedy)
        return found

    start, end = (told(name, number_of, "give seconds, 0 or more") for name in ("start_s", "end_s"))
    channel = told("only_channel", whole_number, "give the number of a channel, from 0 on, or leave it empty")
    if end is not None and end <= (start or 0.0):
        problem = f"row {row[ROW]} is of a stretch that ends at {end:g} s and begins at {start or 0.0:g} s"
        raise SettingsError("data", problem, "give an end_s above start_s, or leave it empty")
    return Stretch(start, end, channel)


def _empty(value: Any) -> bool:
    """Whether a cell says nothing."""
    return value in (None, "") or value != value


def of_data_set(data: LoadedSet, settings: CalibrateSettings) -> tuple[list[Question], Judge]:
    """The questions of an evaluation data set, and what judges their answers.

    Raises SettingsError for a kind of answers that no metric judges, and for a metric that it has not.
    """
    kind, wanted = data.definition.kind, settings.metric or USUAL.get(data.definition.kind, "")
    known = METRICS[kind] if kind in USUAL else ()
    if wanted not in known:
        problem = f"{data.name} has no metric {wanted}" if known else f"no metric judges the answers of {data.name}"
        by_hand = "judge them by hand, in a table with a column `correct`"
        raise SettingsError("metric", problem, f"choose one of {', '.join(known)}" if known else by_hand)
    chosen = wanted if settings.metric or settings.at_least is not None else ""

    def judge(answers: Sequence[str | None], embed_text: EmbedText) -> tuple[list[bool | None], str]:
        if not chosen and by_its_sounds(data.definition):
            return right_of(data, answers, Scores())
        scores = score(kind, data.items, answers, labels=data.labels, embed_text=embed_text, metrics=[wanted])
        if wanted not in scores.metrics:
            told = scores.unavailable[0]
            raise SettingsError("metric", f"{wanted} cannot be had: {told.why}", told.install)
        return right_of(data, answers, scores, chosen, settings.at_least)

    return [_of_item(item) for item in data.items], judge


def _of_item(item: Item) -> Question:
    question = item.question or None
    if item.choices:
        question = choices.ask(item.question, choices.order(item.choices, 0, item.item_id))
    whole = not item.start_s and item.end_s is None
    end = None if whole else math.inf if item.end_s is None else item.end_s
    stretch = Stretch(None if whole else item.start_s, end, item.only_channel)
    return Question(item.uri, item.task, question, item.tag or None, stretch)
