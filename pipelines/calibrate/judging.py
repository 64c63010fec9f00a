"""What was judged: clips with a request each, and whether the model's answer is right, or how that is found out.

A table (CSV, JSONL, Parquet) has a column `uri` and either `right` (a person's judgement) or, as the predictions of
`mats evaluate`, `metrics`. Anything else is an evaluation data set, whose answers a metric judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.prompts import task_name
from mats_core.scoring import METRICS, Item, Kind, LabelSet, choices, score
from mats_core.scoring.labels import split_answer
from mats_core.soundworld.language import parse_kinds
from pipelines.data.lists import LIST_ENDINGS, read_table
from pipelines.evaluate.datasets import LoadedSet
from pipelines.evaluate.datasets.loading import SOUNDWORLD
from pipelines.settings.evaluate import CalibrateSettings

KINDS_RULE = "names no wrong kind of sound and misses at most half"
LABELS_RULE = "names no wrong label and misses at most half"
LEAST = {"accuracy": 1.0, "macro_f1": 1.0, "accuracy_exact": 1.0, "accuracy_normalised": 1.0}
"""What an answer must reach in a metric to be right, where 0.5 is not meant."""
USUAL: dict[Kind, str] = {"caption": "cider_d", "label": "accuracy", "choice": "accuracy"}
_TRUE, _FALSE = {"1", "true", "yes", "right"}, {"0", "false", "no", "wrong"}
_COLUMNS = (
    "uri",
    "task",
    "question",
    "tag",
    "start_s",
    "right",
    "text",
    "metrics",
    "matched",
    "truth",
    "choices",
    "order",
)


@dataclass(frozen=True)
class Question:
    """A clip and what is asked of it. start_s: which chunk of the file, None where it has but one; right: a judgement
    of `text`, None where the answer is judged when it is there."""

    uri: str
    task: str
    question: str | None = None
    tag: str | None = None
    start_s: float | None = None
    right: bool | None = None
    text: str | None = None


Judge = Callable[[Sequence[str | None]], list[bool | None]]
"""Answers, in the order of the questions, None where there is none → right, wrong, or not to be told."""


def is_table(data: str) -> bool:
    """Whether SET names a table of judged clips, and no evaluation data set."""
    name = storage.public_uri(data).lower()
    return name.endswith(LIST_ENDINGS) or storage.is_dir(data)


def read_judged(data: str, metric: str = "", at_least: float | None = None) -> tuple[list[Question], str]:
    """The judged clips of a table, or of a folder of predictions; and how they were judged, in words.

    Raises SettingsError for a table that has neither judgements nor metrics.
    """
    if storage.is_dir(data):
        files = sorted(each.uri for each in storage.list_files(data) if each.uri.endswith(".parquet"))
        if not files:
            raise SettingsError("data", f"{storage.public_uri(data)} holds no Parquet files", "name OUT/predictions")
        rows = [row for uri in files for row in _rows(uri)]
    else:
        rows = _rows(data)
    if rows and "right" in rows[0]:
        return [_person(row, at) for at, row in enumerate(rows)], "a person"
    if rows and "metrics" in rows[0]:
        judged, told = [], ""
        for row in rows:
            if row.get("text") is not None and not row.get("order"):
                right, told = _by_metrics(row, metric, at_least)
                if right is not None:
                    judged.append(_question(row, right))
        return judged, told
    problem = f"{storage.public_uri(data)} has neither a column `right` nor the metrics of `mats evaluate`"
    raise SettingsError("data", problem, "write true or false into a column `right`, one a clip")


def _rows(uri: str) -> list[dict[str, Any]]:
    schema, batches = read_table(uri, only=_COLUMNS)
    if "uri" not in schema.names:
        problem = f"{storage.public_uri(uri)} has no column `uri`"
        raise SettingsError("data", problem, "give the column, the sound of each row")
    return [row for batch in batches for row in batch.to_pylist()]


def _question(row: Mapping[str, Any], right: bool) -> Question:
    question = row.get("question") or None
    if row.get("choices"):
        question = choices.ask(question or "", row["choices"])
    task = task_name(row.get("task") or ("QA" if question else "caption"))
    start = None if row.get("start_s") in (None, "") else float(row["start_s"])
    return Question(row["uri"], task, question, row.get("tag") or None, start, right, row.get("text") or None)


def _person(row: Mapping[str, Any], at: int) -> Question:
    said = str(row["right"]).strip().lower()
    if said not in _TRUE | _FALSE or not row["uri"]:
        problem = f"row {at + 1} says {said!r:.40} about {row['uri'] or 'no file'}"
        raise SettingsError("data", problem, "say true or false in `right`, and leave out rows that were not judged")
    return _question(row, said in _TRUE)


def _by_metrics(row: Mapping[str, Any], metric: str, at_least: float | None) -> tuple[bool | None, str]:
    values = {each["name"]: each["value"] for each in row["metrics"] or ()}
    if not metric and "micro_f1" in values:
        return right_labels(row["matched"], row["truth"] or ()), LABELS_RULE
    name = metric or next((name for name in USUAL.values() if name in values), "")
    if name not in values:
        known = ", ".join(values) or "none"
        problem = f"the predictions have no {name or 'metric that judges answers'}"
        raise SettingsError("metric", problem, f"choose one of: {known}")
    least = threshold(name, at_least)
    return (None if values[name] is None else bool(values[name] >= least)), f"{name} of at least {least:g}"


def threshold(metric: str, at_least: float | None) -> float:
    """What an answer must reach in a metric to be right."""
    return at_least if at_least is not None else LEAST.get(metric, 0.5)


def right_labels(matched: str | None, truth: Sequence[str]) -> bool:
    """Whether the labels that an answer was taken for are among the true ones, and at least half of those."""
    named = set(split_answer(matched or "", LabelSet(tuple(truth))))
    return named <= set(truth) and 2 * len(named) >= len(set(truth))


def of_data_set(
    data: LoadedSet, settings: CalibrateSettings, embed_text: Callable[[list[str]], np.ndarray]
) -> tuple[list[Question], Judge, str]:
    """The questions of an evaluation data set, what judges their answers, and how, in words.

    Raises SettingsError for a kind of answers that no metric judges, and for a metric that it has not.
    """
    definition = data.definition
    kind = definition.kind
    name = settings.metric or USUAL.get(kind, "")
    asked = [_of_item(item) for item in data.items]
    if not settings.metric and kind == "caption" and definition.reader == SOUNDWORLD:
        return (
            asked,
            lambda answers: [_right_kinds(*pair) for pair in zip(answers, data.items, strict=True)],
            KINDS_RULE,
        )
    by_labels = kind == "labels" and not settings.metric
    wanted = "micro_f1" if by_labels else name
    if wanted not in METRICS[kind] or kind == "chat":
        known = ", ".join(METRICS[kind]) if kind != "chat" else ""
        problem = f"no metric judges the answers of {data.name}" if not known else f"{data.name} has no metric {wanted}"
        remedy = f"choose one of {known}" if known else "judge them by hand, in a table with a column `right`"
        raise SettingsError("metric", problem, remedy)
    least = threshold(name, settings.at_least)

    def judge(answers: Sequence[str | None]) -> list[bool | None]:
        scores = score(kind, data.items, answers, labels=data.labels, embed_text=embed_text, metrics=[wanted])
        if by_labels:
            pairs = zip(scores.details["matched"], data.items, answers, strict=True)
            return [None if said is None else right_labels(matched, item.labels) for matched, item, said in pairs]
        if wanted not in scores.metrics:
            told = scores.unavailable[0]
            raise SettingsError("metric", f"{wanted} cannot be had: {told.why}", told.install)
        return [None if value is None else bool(value >= least) for value in scores.metrics[wanted].values]

    return asked, judge, LABELS_RULE if by_labels else f"{name} of at least {least:g}"


def _of_item(item: Item) -> Question:
    question = item.question or None
    if item.choices:
        question = choices.ask(item.question, choices.order(item.choices, 0, item.item_id))
    return Question(item.uri, item.task, question, item.tag or None, item.start_s)


def _right_kinds(answer: str | None, item: Item) -> bool | None:
    """Of a caption of the embedded world, by the kinds that it and its references name."""
    if answer is None:
        return None
    named, there = set(parse_kinds(answer)), {kind for text in item.references for kind in parse_kinds(text)}
    return named <= there and 2 * len(named) >= len(there)
