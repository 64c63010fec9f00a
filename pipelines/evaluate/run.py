"""Benchmarks + model → answers, metrics, a page, and a row in the history.

    read ─ check ─ answers (the captioning pipeline) ─ scores ─ gate ─ predictions, metrics.json, report.html, history

Run again with the same OUT, what is answered is not asked again.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.errors import got_allowed
from mats_core.model.facts import ModelFacts, read_model_facts
from mats_core.model.prompts import validate_request
from mats_core.scoring import METRICS
from mats_core.storage.fingerprint import hash_settings
from pipelines.archive.caption import audio_mean, chosen_bridge, chosen_decoding
from pipelines.archive.run import RunResult
from pipelines.cluster.progress import Progress
from pipelines.data import parquet
from pipelines.evaluate.answers import Task, asked_rows, cell_folder, make_answers, read_replies
from pipelines.evaluate.datasets import judge_file, load_benchmark, read
from pipelines.evaluate.gate import Verdict, check_against, gate
from pipelines.evaluate.history import ANSWERED, History
from pipelines.evaluate.scores import Ears, Result, lengths, modality_gap, predictions, score_task
from pipelines.output.folder import open_output
from pipelines.output.record import read_run, utc, versions
from pipelines.settings.evaluate import Cell, EvaluateSettings, cells

RECORD = "_evaluation.json"
WRITTEN = (
    "asked",
    "asked.parquet",
    "cells",
    "heard",
    "judge",
    "metrics.json",
    "predictions",
    "report.html",
    "sounds.parquet",
)
"""What runs write into OUT, besides the record."""
FORMAT = 1


@dataclass
class CellResult:
    """One cell of the grid: its benchmarks' results, its captioning run, seconds of scoring."""

    cell: Cell
    results: list[Result]
    run: dict[str, Any]


@dataclass
class Evaluation:
    """What an evaluation came to. status: complete, or that of the captioning run that did not end."""

    status: str
    run_id: str
    out: str
    cells: list[CellResult] = field(default_factory=list)
    verdict: Verdict | None = None
    accepted: bool = False
    rows: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Share of all answers that failed."""
        return self.failed / self.rows if self.rows else 0.0


def run_evaluate(
    settings: EvaluateSettings, progress: Callable[[str, Progress | None], None] | None = None
) -> Evaluation:
    """Evaluate `settings.model`; raises SettingsError before any model is loaded where something cannot work."""
    tell = progress or (lambda stage, _: None)
    started = time.time()
    grid, tasks, facts, history = _check(settings)
    with open_output(settings.out, written=()):
        run_id, began = _record(settings, tasks, facts)
        with _one_ray(settings, tasks, facts, grid) as given:
            results = make_answers(given, tasks, grid, tell)
        answered = time.time()
        done = Evaluation("complete", run_id, settings.out)
        done.rows = sum(r.rows for name, r in results.items() if name != "heard")
        done.failed = sum(sum(r.errors.values()) for name, r in results.items() if name != "heard")
        unfinished = next((r for r in results.values() if r.status not in ("complete", "complete_before")), None)
        if unfinished is not None:
            done.status, done.rows = unfinished.status, unfinished.rows
            return done
        tell("scores", None)
        done.cells = _score(settings, tasks, grid, facts, results, run_id, tell)
        scored = time.time()
        rows = history_rows(settings, facts, done, began)
        if history is not None:
            if settings.against:
                done.verdict = gate(
                    history, rows, settings.against, settings.tolerance, settings.seed, settings.ungated
                )
            history.add(rows)
            passed = done.verdict is None or done.verdict.open
            if settings.accept and passed and done.error_rate <= settings.max_error_rate:
                history.mark("accept", run_id, by="gate")
                done.accepted = True
        done.seconds = {"answers": answered - started, "scores": scored - answered}
        _write_metrics(settings, facts, done, began)
        tell("page", None)
        from pipelines.evaluate.page import write_page

        write_page(settings, done, history)
        done.seconds["page"] = time.time() - scored
        _write_metrics(settings, facts, done, began)
        return done


def _check(settings: EvaluateSettings) -> tuple[list[Cell], list[Task], ModelFacts, History | None]:
    """All that can be wrong before work starts: settings, files of benchmarks, model, history."""
    names = settings.names()
    if not settings.out:
        raise got_allowed("out", settings.out, "a folder for predictions, metrics and the page")
    _check_out(settings.out)
    grid = cells(settings)
    if (settings.against or settings.accept) and not settings.history:
        raise got_allowed("history", settings.history, "a folder (path or URL), which --against and --accept need")
    for name in ("against", "accept"):
        if getattr(settings, name) and grid[0].values:
            raise got_allowed(name, getattr(settings, name), "a run without a grid")
    facts = read_model_facts(settings.model)
    for cell in grid:
        given = settings.caption_settings(input="", output="", **cell.changes)
        chosen_decoding(given, facts)
        if given.bridge != "mean-shift":
            chosen_bridge(given, facts, None)
        elif facts.config.memory is None:
            raise got_allowed("bridge", given.bridge, "santa or none: this model has no memory of texts")
    history = History(settings.history) if settings.history else None
    benchmarks = [load_benchmark(name) for name in names]
    if history is not None and settings.against:
        check_against(history, settings.against, [benchmark.name for benchmark in benchmarks])
    metrics = [f"{each.name}/{metric}" for each in benchmarks for metric in (*METRICS[each.kind], ANSWERED)]
    for name in settings.ungated:
        if name not in metrics:
            raise got_allowed("ungated", name, f"BENCHMARK/METRIC, one of {', '.join(dict.fromkeys(metrics))}")
    roots = settings.roots([benchmark.name for benchmark in benchmarks])
    tasks = []
    for benchmark in benchmarks:
        tasks.append(Task(benchmark, read(benchmark, roots[benchmark.name], settings.limit)))
        for item in tasks[-1].items:
            validate_request(item.task, item.question or None, tuple(facts.config.tasks))
    if history is not None:
        history.check_writable()
    return grid, tasks, facts, history


def _check_out(out: str) -> None:
    """Raise SettingsError for a folder that no evaluation began and that has files where one would write."""
    try:
        own = storage.exists(storage.join(out, RECORD))
        taken = [] if own else [name for name in WRITTEN if storage.exists(storage.join(out, name))]
    except storage.StorageError as error:
        raise got_allowed("out", storage.public_uri(out), f"a folder that can be read ({error})") from None
    if taken:
        allowed = f"a new folder, or one of an evaluation; this one is none ({RECORD}) and has {', '.join(taken)}"
        raise got_allowed("out", storage.public_uri(out), allowed)


def _record(settings: EvaluateSettings, tasks: Sequence[Task], facts: ModelFacts) -> tuple[str, str]:
    """(run id, when it began): of the run that OUT holds, or new ones. For the holder of the lease."""
    rows = asked_rows(tasks, settings.orders, settings.seed)
    uri = storage.join(settings.out, RECORD)
    mark = hash_settings(
        {
            "model": facts.fingerprint,
            "benchmarks": settings.names(),
            "limit": settings.limit,
            "grid": [*settings.grid, *settings.axes],
            "bridge": settings.bridge,
            "orders": settings.orders,
            "seed": settings.seed,
            "asked": [{**row, "uri": storage.public_uri(row["uri"])} for row in rows],
            "versions": [task.reading.versions for task in tasks],
        }
    )
    if storage.exists(uri):
        known = json.loads(storage.read_bytes(uri))
        same = known.get("mark") == mark
        if not same and not settings.overwrite:
            raise got_allowed(
                "out",
                storage.public_uri(settings.out),
                "another folder, or --overwrite: this one holds an evaluation of another model, of other settings or "
                "of other items (their sounds, questions or tags)",
            )
        if settings.overwrite:
            for name in WRITTEN:
                storage.remove_tree(storage.join(settings.out, name))
        if same:
            return str(known["run_id"]), str(known["started"])
    run_id, began = uuid.uuid4().hex[:12], utc(time.time())
    record = {"format": FORMAT, "run_id": run_id, "started": began, "mark": mark, "model": facts.fingerprint}
    storage.write_bytes(uri, json.dumps(record, indent=1).encode())
    return run_id, began


@contextmanager
def _one_ray(settings: EvaluateSettings, tasks: Sequence[Task], facts: ModelFacts, grid: Sequence[Cell]) -> Any:
    """One Ray for all of the run's parts, and the settings to use it with: starting one takes longer than an answer.

    A single run starts its own, as `mats caption` does.
    """
    asked = sum(len(task.items) for task in tasks)
    single = len(grid) == 1 and all(not item.choices for task in tasks for item in task.items)
    if single or storage.exists(storage.join(settings.out, "metrics.json")):
        yield settings
        return
    from pipelines.cluster.plan import make_plan
    from pipelines.cluster.session import ray_session

    with ray_session(settings.address, settings.actors or 0) as there:
        if settings.actors is None and there.own:
            given = settings.caption_settings(input="", output="")
            settings = settings.model_copy(update={"actors": make_plan(given, asked, facts.size, there).actors})
        yield settings


def _score(
    settings: EvaluateSettings,
    tasks: Sequence[Task],
    grid: Sequence[Cell],
    facts: ModelFacts,
    runs: dict[str, RunResult],
    run_id: str,
    tell: Callable[[str, Progress | None], None],
) -> list[CellResult]:
    ears = Ears(settings.model, facts, settings.device)
    shared: dict[str, dict[str, Any]] = {task.benchmark.name: {} for task in tasks}
    found = []
    for cell in grid:
        folder = cell_folder(settings.out, cell)
        replies = read_replies(folder, tasks)
        results = []
        for task in tasks:
            name = task.benchmark.name
            result = score_task(task, replies[name], ears, settings.seed, shared[name])
            result.gap = modality_gap(result, ears, _mover(settings, cell, facts, ears))
            judged = judge_file(task.benchmark, task.reading, result.answers, settings.seed)
            if judged is not None:
                result.judge_file = storage.join("judge", cell.name, name, judged[0])
                storage.write_bytes(storage.join(settings.out, result.judge_file), judged[1].encode("utf-8"))
            results.append(result)
        rows = predictions(results, facts.fingerprint, run_id, settings.seed)
        parquet.write(storage.join(settings.out, "predictions", f"{cell.name}.parquet"), rows)
        found.append(CellResult(cell, results, read_run(folder) or {}))
    return found


def _mover(settings: EvaluateSettings, cell: Cell, facts: ModelFacts, ears: Ears) -> Callable[[np.ndarray], np.ndarray]:
    """The cell's bridge as a function of embeddings [N, D]."""

    def move(audio: np.ndarray) -> np.ndarray:
        import torch

        from mats_core.memory.bridges import Bridge, BridgeSettings
        from mats_core.model.config import SantaSettings

        given = settings.caption_settings(input="", output="", **cell.changes)
        _, santa = chosen_decoding(given, facts)
        values: dict[str, Any] = {"kind": given.bridge, "scale": given.projection_scale, "captions": given.retrieved}
        if given.bridge == "mean-shift":
            values["audio_mean"] = audio_mean(storage.join(settings.out, "asked"))
        bridge = Bridge(BridgeSettings(**values), ears.memory())
        moved: np.ndarray = bridge.move(torch.from_numpy(audio), SantaSettings(**santa)).numpy()
        return moved

    return move


def history_rows(settings: EvaluateSettings, facts: ModelFacts, done: Evaluation, began: str) -> list[dict[str, Any]]:
    """The run as rows of a history: every metric that has a value, and always the share of items that were answered."""
    rows = []
    shown = json.dumps(_shown(settings), sort_keys=True)
    for each in done.cells:
        for result in each.results:
            items = [item.item_id for item in result.task.items]
            common: dict[str, Any] = {
                "run_id": done.run_id,
                "started": began,
                "out": storage.public_uri(settings.out),
                "model": storage.public_uri(settings.model),
                "model_fingerprint": facts.fingerprint,
                "settings": shown,
                "cell": "" if len(done.cells) == 1 and not each.cell.values else each.cell.name,
                "benchmark": result.task.benchmark.name,
                "kind": result.task.benchmark.kind,
                "labels": hash_settings(list(result.task.reading.labels.names)),
                "items": items,
            }
            for name, metric in result.scores.metrics.items():
                if metric.value is None:
                    continue
                rows.append(
                    {
                        **common,
                        "metric": name,
                        "value": metric.value,
                        "low": metric.low,
                        "high": metric.high,
                        "n": metric.n,
                        "statistic": metric.statistic,
                        "higher_is_better": metric.higher_is_better,
                        "rows": list(metric.rows),
                    }
                )
            if ANSWERED not in result.scores.metrics:
                share = result.answered
                mean = float(np.mean(share))
                given: dict[str, Any] = {"value": mean, "low": mean, "high": mean, "n": len(share), "statistic": "mean"}
                rows.append(
                    {**common, **given, "metric": ANSWERED, "higher_is_better": True, "rows": [[v] for v in share]}
                )
    return rows


def _shown(settings: EvaluateSettings) -> dict[str, Any]:
    shown = settings.model_dump()
    for name in ("model", "out", "history"):
        shown[name] = storage.public_uri(shown[name])
    shown["data"] = [storage.public_uri(value) for value in shown["data"]]
    return shown


def _write_metrics(settings: EvaluateSettings, facts: ModelFacts, done: Evaluation, began: str) -> None:
    verdict = done.verdict
    record = {
        "format": FORMAT,
        "run_id": done.run_id,
        "started": began,
        "model": storage.public_uri(settings.model),
        "model_fingerprint": facts.fingerprint,
        "settings": _shown(settings),
        "versions": versions(),
        "answers": done.rows,
        "failed": done.failed,
        "accepted": done.accepted,
        "seconds": {name: round(value, 3) for name, value in done.seconds.items()},
        "gate": None
        if verdict is None
        else {
            "open": verdict.open,
            "against": verdict.against,
            "tolerance": settings.tolerance,
            "falls": [vars(change) for change in verdict.falls],
            "lost": [vars(each) for each in verdict.lost],
            "changes": [vars(change) for change in verdict.changes],
            "skipped": verdict.skipped,
        },
        "cells": [
            {
                "cell": each.cell.name,
                "values": each.cell.values,
                "run": {k: each.run.get(k) for k in ("wall_s", "start_s", "busy_s", "steady", "stage_s", "errors")},
                "benchmarks": {result.task.benchmark.name: _facts(result) for result in each.results},
            }
            for each in done.cells
        ],
    }
    data = json.dumps(record, indent=1, default=str).encode()
    storage.write_bytes(storage.join(settings.out, "metrics.json"), data)


def _facts(result: Result) -> dict[str, Any]:
    benchmark, gap = result.task.benchmark, result.gap
    return {
        "title": benchmark.title,
        "kind": benchmark.kind,
        "split": benchmark.split,
        "prompt": {"tag": benchmark.tag, "question": benchmark.question},
        "items": len(result.task.items),
        "answered": sum(result.answered),
        "left_out": [list(pair) for pair in result.task.reading.left_out],
        **result.scores.as_dict(),
        "baselines": {name: scores.as_dict() for name, scores in result.baselines.items()},
        "judge_file": result.judge_file or None,
        "words": lengths(result.replies),
        "gap": None if gap is None else {"cosine": gap.cosine, "distance": gap.distance},
    }
