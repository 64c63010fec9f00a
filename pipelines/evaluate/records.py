"""What is written of an evaluation: predictions row by row, rows of the history, metrics.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.model.facts import ModelFacts
from mats_core.scoring import MEANS, Metric, choices
from mats_core.storage.fingerprint import hash_settings
from pipelines.data.schemas import Columns, schema_of
from pipelines.evaluate.history import ANSWERED
from pipelines.evaluate.scores import Evaluation, SetResult, truths
from pipelines.output.record import versions
from pipelines.settings.evaluate import EvaluateSettings

FORMAT = 1
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
PREDICTIONS_COLUMNS: Columns = {
    "benchmark": (_TEXT, "The data set."),
    "item": (_TEXT, "The item's id in it."),
    "order": (pa.int32(), "Which order of the options this is, from 0; 0 for items without."),
    "uri": (_TEXT, "The sound."),
    "task": (_TEXT, "What was asked."),
    "question": (_TEXT, "The question, without its options."),
    "choices": (_TEXTS, "The options as they were shown."),
    "category": (_TEXT, "The publisher's category of the item, where it has one."),
    "truth": (_TEXTS, "What is right: captions, labels, or the option."),
    "text": (_TEXT, "What was answered."),
    "matched": (_TEXT, "The label or option that the answer was taken for."),
    "metrics": (pa.list_(pa.struct({"name": _TEXT, "value": pa.float64()})), "What every metric makes of the item."),
    "seconds": (pa.float64(), "Seconds of sound that were heard."),
    "error": (_TEXT, "Why there is no answer."),
    "model_fingerprint": (_TEXT, "Which model answered."),
    "run_id": (_TEXT, "Which run this is."),
    "confidence": (pa.float64(), "The chance that the answer is right, as the model has it; null without calibration."),
    "correct": (pa.bool_(), "Whether the first answer to the item is right; null where that is not told."),
    "judged_by": (_TEXT, "What makes it right."),
    "start_s": (pa.float64(), "Where in the sound what was asked about begins; null: at its beginning."),
    "end_s": (pa.float64(), "Where it ends; null: at the end of the sound."),
    "only_channel": (pa.int64(), "The only channel that was asked about; null: the mean of all."),
    "rows": (
        pa.list_(pa.struct({"name": _TEXT, "values": pa.list_(pa.float64())})),
        "What the item contributes to every metric that is no mean over items, such as its hits.",
    ),
}
PREDICTIONS_SCHEMA = schema_of(PREDICTIONS_COLUMNS)


def predictions(results: Sequence[SetResult], model_fingerprint: str, run_id: str, seed: int) -> pa.Table:
    """One row an item and order: what was asked, what is right, what was answered, what it was taken for, and what
    every metric makes of it (`metrics`: list of name and value)."""
    rows = []
    of_run = {"model_fingerprint": model_fingerprint, "run_id": run_id}
    for result in results:
        matched = result.scores.details.get("matched") or [None] * len(result.answers)
        for index, (item, answer) in enumerate(zip(result.data.items, result.answers, strict=True)):
            metrics = [
                (name, each.values[index]) for name, each in result.scores.metrics.items() if index < len(each.values)
            ]
            rows_of = [
                {"name": name, "values": each.rows[index]}
                for name, each in result.scores.metrics.items()
                if each.statistic not in MEANS and index < len(each.rows) and each.rows[index] is not None
            ]
            right = truths(item, result.data.definition.kind)
            start, end = item.start_s or None, item.end_s
            if start is not None and end is None and answer.seconds:
                end = start + answer.seconds
            common = {
                "benchmark": result.data.name, "item": item.item_id, "uri": item.uri, "task": item.task,
                "question": item.question or None, "category": item.category or None, "truth": right,
                "seconds": answer.seconds, "error": answer.error or None,
                "start_s": start, "end_s": end, "only_channel": item.only_channel, **of_run,
            }  # fmt: skip
            of_first = {"matched": matched[index], "metrics": [{"name": n, "value": value} for n, value in metrics]}
            of_first |= {"rows": rows_of}
            of_first |= {"correct": result.right[index] if result.right else None, "judged_by": result.judged_by}
            for order, text in enumerate(answer.texts or [None]):
                shown = list(choices.order(item.choices, seed + order, item.item_id)) if item.choices else None
                sure = answer.confidence[order] if order < len(answer.confidence) else None
                own = {"order": order, "choices": shown, "text": text, "confidence": sure}
                rows.append({**common, **own, **(of_first if order == 0 else {})})
    return pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)


def history_rows(settings: EvaluateSettings, facts: ModelFacts, done: Evaluation, began: str) -> list[dict[str, Any]]:
    """The run as rows of a history: every metric that has a value, and always the share of items that were answered."""
    rows = []
    figures = ("value", "low", "high", "n", "statistic", "higher_is_better")
    of_run = {**_run_facts(settings, facts, done, began), "out": storage.public_uri(settings.out)}
    of_run["settings"] = json.dumps(of_run["settings"], sort_keys=True)
    for each in done.cells:
        for result in each.results:
            data = result.data
            common = {
                **of_run, "cell": "" if len(done.cells) == 1 and not each.cell.values else each.cell.name,
                "benchmark": data.name, "kind": data.definition.kind, "items": [item.item_id for item in data.items],
                "labels": hash_settings(list(data.labels.names)),
            }  # fmt: skip
            share = result.answered
            mean = float(np.mean(share))
            answered = Metric(ANSWERED, mean, mean, mean, len(share), (), tuple([value] for value in share))
            metrics = dict(result.scores.metrics)
            metrics.setdefault(ANSWERED, answered)
            for name, metric in metrics.items():
                if metric.value is not None:
                    own = {figure: getattr(metric, figure) for figure in figures}
                    rows.append({**common, **own, "metric": name, "rows": list(metric.rows)})
    return rows


def _run_facts(settings: EvaluateSettings, facts: ModelFacts, done: Evaluation, began: str) -> dict[str, Any]:
    """Which run it is, of which model and settings, without secrets in URIs."""
    shown: dict[str, Any] = {name: storage.public_uri(getattr(settings, name)) for name in ("model", "out", "history")}
    shown["data"] = [storage.public_uri(value) for value in settings.data]
    return {
        "run_id": done.run_id, "started": began, "model": storage.public_uri(settings.model),
        "model_fingerprint": facts.fingerprint, "settings": settings.model_dump() | shown,
    }  # fmt: skip


def write_metrics(settings: EvaluateSettings, facts: ModelFacts, done: Evaluation, began: str) -> None:
    """Write OUT/metrics.json."""
    said: dict[str, Any] | None = None
    if (verdict := done.verdict) is not None:
        compared: dict[str, Sequence[Any]] = {
            "falls": verdict.falls,
            "lost": verdict.not_comparable,
            "changes": verdict.changes,
        }
        said = {"open": verdict.open, "against": verdict.against, "tolerance": settings.tolerance}
        said |= {name: [vars(each) for each in found] for name, found in compared.items()}
        said["skipped"] = verdict.skipped
    record = {
        "format": FORMAT, **_run_facts(settings, facts, done, began), "versions": versions(),
        "answers": done.rows, "failed": done.failed, "accepted": done.accepted,
        "seconds": {name: round(value, 3) for name, value in done.seconds.items()},
        "gate": said,
        "cells": [
            {
                "cell": each.cell.name,
                "values": each.cell.values,
                "run": {k: each.run.get(k) for k in ("wall_s", "start_s", "busy_s", "steady", "stage_s", "errors")},
                "benchmarks": {result.data.name: _set_facts(result) for result in each.results},
            }
            for each in done.cells
        ],
    }  # fmt: skip
    data = json.dumps(record, indent=1, default=str).encode()
    storage.write_bytes(storage.join(settings.out, "metrics.json"), data)


def _set_facts(result: SetResult) -> dict[str, Any]:
    definition, gap = result.data.definition, result.gap
    return {
        **{name: getattr(definition, name) for name in ("title", "kind", "split")},
        "prompt": {"tag": definition.tag, "question": definition.question},
        "items": len(result.data.items), "answered": sum(result.answered),
        "left_out": [list(pair) for pair in result.data.left_out], "shortfall": result.data.partial,
        **result.scores.as_dict(),
        "baselines": {name: scores.as_dict() for name, scores in result.baselines.items()},
        "judge_file": result.judge_file or None, "words": result.lengths,
        "gap": None if gap is None else {"cosine": gap.cosine, "distance": gap.distance},
    }  # fmt: skip
