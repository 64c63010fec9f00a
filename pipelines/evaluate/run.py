"""Data sets + model → answers, metrics, a page, and a row in the history.

    read ─ check ─ answers (the captioning pipeline) ─ scores ─ gate ─ predictions, metrics.json, report.html, history

Run again with the same OUT, what is answered is not asked again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.errors import SettingsError, counted
from mats_core.model.facts import ModelFacts, read_model_facts
from mats_core.model.prompts import validate_request
from mats_core.scoring import METRICS
from mats_core.scoring.sureness import SURENESS
from mats_core.storage.fingerprint import hash_settings
from pipelines.archive.caption import audio_mean, chosen_bridge, chosen_decoding
from pipelines.cluster.progress import Progress
from pipelines.data import parquet
from pipelines.data.generations import told
from pipelines.evaluate.answers import HEARD, asked_rows, cell_folder, make_answers, read_answers
from pipelines.evaluate.datasets import LoadedSet, load_evaluation_set, load_items
from pipelines.evaluate.gate import check_against, gate
from pipelines.evaluate.history import ANSWERED, History
from pipelines.evaluate.page import PAGE, write_page
from pipelines.evaluate.records import FORMAT, history_rows, predictions, write_metrics
from pipelines.evaluate.scores import CellResult, EncoderAndMemory, Evaluation, modality_gap, score_answers
from pipelines.evaluate.suite import TABLES, Tables, load_suite, what_is_there
from pipelines.output.folder import Output, open_output
from pipelines.output.lease import LeaseLost
from pipelines.output.record import read_run, utc
from pipelines.settings.calling import by_name
from pipelines.settings.evaluate import Cell, EvaluateSettings, cells

RECORD = "_evaluation.json"
WRITTEN = (
    "asked", "asked.parquet", "cells", HEARD, "judge", "metrics.json", "predictions", "report.html", "sounds.parquet",
    TABLES,
)  # fmt: skip
"""What runs write into OUT, besides the record."""


@by_name(EvaluateSettings)
def run_evaluate(
    settings: EvaluateSettings,
    progress: Callable[[str, Progress | None], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate `settings.model`; raises SettingsError before any model is loaded where something cannot work.

    warn: is told of data sets of which not all is there, before they are asked.
    """
    tell = progress or (lambda stage, _: None)
    started = time.time()
    absent: dict[str, str] = {}
    if settings.suite:
        settings, absent = what_is_there(settings)
    grid, data_sets, facts, history = _check(settings)
    for data in data_sets if warn else ():
        if data.shortfall and warn:
            warn(f"{data.name}: {data.shortfall}")
    with open_output(settings.out, written=("predictions", "judge")) as out:
        run_id, began = _begin(settings, data_sets, facts, out)
        with _one_ray(settings, data_sets, facts, grid) as given:
            results = make_answers(given, data_sets, grid, tell)
        answered = time.time()
        done = Evaluation("complete", run_id, settings.out)
        asked = [r for name, r in results.items() if name != HEARD]
        done.rows, done.failed = sum(r.rows for r in asked), sum(sum(r.errors.values()) for r in asked)
        unfinished = next((r for r in results.values() if r.status not in ("complete", "complete_before")), None)
        if unfinished is not None:
            done.status, done.rows = unfinished.status, unfinished.rows
            return done
        tell("scores", None)
        out.check()
        done.cells = _score(settings, data_sets, grid, facts, run_id)
        _check_still(out, run_id, *(out.join(name) for name in ("predictions", "judge")))
        scored = time.time()
        rows = history_rows(settings, facts, done, began)
        if history is not None:
            if settings.against:
                limits = (settings.tolerance, settings.seed, settings.ungated)
                done.verdict = gate(history, rows, settings.against, *limits)
            out.check()
            history.add(rows)
            _check_still(out, run_id, history.uri_of(run_id))
            passed = done.verdict is None or done.verdict.open
            if settings.accept and passed and done.error_rate <= settings.max_error_rate:
                history.mark("accept", run_id, by="gate")
                done.accepted = True
        done.seconds = {"answers": answered - started, "scores": scored - answered}
        write_metrics(settings, facts, done, began)
        tell("page", None)
        write_page(settings, done, history)
        done.seconds["page"] = time.time() - scored
        if settings.suite:
            model = f"{storage.public_uri(settings.model)}, fingerprint {facts.fingerprint[:12]}"
            tables = Tables(load_suite(settings.suite), done, absent, f"run {run_id}, begun {began}, model {model}")
            tables.write(settings.out)
            done.tables = tables.markdown()
        write_metrics(settings, facts, done, began)
        _check_still(out, run_id, *(out.join(name) for name in ("metrics.json", PAGE)))
        return done


def _check_still(out: Output, run_id: str, *written: str) -> None:
    """Raise LeaseLost where another run took OUT over. Of the same evaluation its files are the same; where that run
    began another one in it, what was just `written` (URIs) is taken away: given again, it writes its own anew."""
    try:
        out.check()
    except LeaseLost:
        now = told(out.uri, RECORD)
        for uri in written if now is None or now.get("run_id") != run_id else ():
            storage.remove_tree(uri)
        raise


def _check(settings: EvaluateSettings) -> tuple[list[Cell], list[LoadedSet], ModelFacts, History | None]:
    """All that can be wrong before work starts: settings, files of data sets, model, history. Raises SettingsError."""
    names = settings.names()
    if not settings.out:
        raise SettingsError("out", "no folder was given", "name one for predictions, metrics and the page (--out)")
    _check_out(settings.out)
    grid = cells(settings)
    if (settings.against or settings.accept) and not settings.history:
        problem = "none was given, which --against and --accept need"
        raise SettingsError("history", problem, "name its folder, a path or URL (--history)")
    for name in ("against", "accept"):
        if getattr(settings, name) and grid[0].values:
            problem = "the cells of a grid are settings tried out, and are neither compared nor accepted"
            raise SettingsError(name, problem, "leave out --grid, or this option")
    facts = read_model_facts(settings.model, settings.allow_parts)
    for cell in grid:
        given = settings.caption_settings(**cell.changes)
        chosen_decoding(given, facts)
        if given.bridge != "mean-shift":
            chosen_bridge(given, facts, None)
        elif facts.config.memory is None:
            problem = f"{given.bridge} needs a memory of texts, which this model has not"
            raise SettingsError("bridge", problem, "choose santa or none")
    history = History(settings.history) if settings.history else None
    definitions = [load_evaluation_set(name) for name in names]
    if history is not None and settings.against:
        check_against(history, settings.against, [each.name for each in definitions])
    metrics = [f"{each.name}/{metric}" for each in definitions for metric in (*METRICS[each.kind], *SURENESS, ANSWERED)]
    for name in settings.ungated:
        if name not in metrics:
            remedy = f"give BENCHMARK/METRIC, one of {', '.join(dict.fromkeys(metrics))}"
            raise SettingsError("ungated", f'"{name}" is not a metric of this run', remedy)
    roots = settings.roots([each.name for each in definitions])
    data_sets = [load_items(each, roots[each.name], settings.limit) for each in definitions]
    for data in data_sets:
        for item in data.items:
            validate_request(item.task, item.question or None, tuple(facts.config.tasks))
    if history is not None:
        history.check_writable()
    return grid, data_sets, facts, history


def _check_out(out: str) -> None:
    """Raise SettingsError for a folder that no evaluation began and that has files where one would write."""
    try:
        own = storage.exists(storage.join(out, RECORD))
        taken = [] if own else [name for name in WRITTEN if storage.exists(storage.join(out, name))]
    except storage.StorageError as error:
        problem = f"{storage.public_uri(out)} cannot be read ({error})"
        raise SettingsError("out", problem, "choose a folder that can be read and written") from None
    if taken:
        problem = f"no evaluation began in {storage.public_uri(out)} (no {RECORD}), but {', '.join(taken)} is there"
        raise SettingsError("out", problem, "choose a new folder, or one of an evaluation")


def _begin(
    settings: EvaluateSettings, data_sets: Sequence[LoadedSet], facts: ModelFacts, out: Output
) -> tuple[str, str]:
    """(run id, when it began): of the run that OUT holds, or new ones. For the holder of the lease.

    Raises SettingsError where OUT holds another evaluation; with --overwrite that one is removed.
    """
    rows = asked_rows(data_sets, settings.orders, settings.seed)
    marked = settings.model_dump(include={"limit", "bridge", "orders", "seed"})
    marked |= {"model": facts.fingerprint, "benchmarks": settings.names(), "grid": [*settings.grid, *settings.axes]}
    marked["asked"] = [{**row, "uri": storage.public_uri(row["uri"])} for row in rows]
    mark = hash_settings({**marked, "versions": [data.versions for data in data_sets]})
    made_of = _made_of(settings, data_sets, facts)
    known = out.lease.generation.told.get(RECORD)
    if known is not None:
        same = known.get("mark") == mark
        if settings.overwrite:
            for name in WRITTEN:
                out.check()
                storage.remove_tree(out.join(name))
        elif not same:
            of = "of another model, of other settings or of other items (their sounds, questions or tags)"
            if apart := _apart(known.get("made_of") or {}, made_of):
                of = f"begun otherwise: {', '.join(apart)}"
            problem = f"{storage.public_uri(settings.out)} holds an evaluation {of}"
            raise SettingsError("out", problem, "choose another folder, or --overwrite")
        if same:
            return str(known["run_id"]), str(known["started"])
    run_id, began = uuid.uuid4().hex[:12], utc(time.time())
    record = {"format": FORMAT, "run_id": run_id, "started": began, "mark": mark, "model": facts.fingerprint}
    out.tell(RECORD, {**record, "made_of": made_of})
    return run_id, began


def _made_of(settings: EvaluateSettings, data_sets: Sequence[LoadedSet], facts: ModelFacts) -> dict[str, Any]:
    """What the mark of an evaluation is of, so that a difference can be told: of each data set the number of its items
    and hashes of what is asked of them."""
    given: dict[str, Any] = settings.model_dump(include={"limit", "bridge", "orders", "seed"})
    items = {}
    for data in data_sets:
        where = [(storage.public_uri(i.uri), i.start_s, i.end_s, i.only_channel) for i in data.items]
        asked = [(i.item_id, i.task, i.question, i.choices, i.tag) for i in data.items]
        hashes = {"sounds": where, "questions or tags": asked, "contents of its sound files": data.versions}
        items[data.name] = {"items": len(data.items), **{name: hash_settings(each) for name, each in hashes.items()}}
    given["benchmarks"] = ",".join(map(storage.public_uri, settings.names()))
    given["grid"] = " ".join([*settings.grid, *settings.axes])
    model = {"at": storage.public_uri(settings.model), "fingerprint": facts.fingerprint[:12]}
    return {"model": model, "settings": given, "items": items}


def _apart(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what two of `_made_of` differ, as a person can read it; nothing where `known` is of a run that told none."""
    if not known:
        return []
    was, new, found = known["settings"], now["settings"], []
    if known["model"]["fingerprint"] != now["model"]["fingerprint"]:
        before, after = ("{at} (fingerprint {fingerprint})".format(**each["model"]) for each in (known, now))
        found.append(f"model {before}, now {after}")
    for name in new:
        if was.get(name) != new[name]:
            before, after = ("not given" if each.get(name) in (None, "") else each[name] for each in (was, new))
            found.append(f"--{name} {before}, now {after}")
    if was.get("limit") != new["limit"]:
        return found  # note: other items follow from it
    for name in sorted(known["items"].keys() & now["items"].keys()):
        old, own = known["items"][name], now["items"][name]
        if old["items"] != own["items"]:
            found.append(f"{name} of {counted(old['items'], 'item')}, now {own['items']:,}")
            continue
        found += [f"other {what} of {name}" for what in own if old.get(what) != own[what]]
    return found


@contextmanager
def _one_ray(
    settings: EvaluateSettings, data_sets: Sequence[LoadedSet], facts: ModelFacts, grid: Sequence[Cell]
) -> Iterator[EvaluateSettings]:
    """One Ray for all of the run's parts, and the settings to use it with: starting one takes longer than an answer.

    A single run starts its own, as `mats caption` does.
    """
    items = [item for data in data_sets for item in data.items]
    single = len(grid) == 1 and not any(item.choices for item in items)
    if single or storage.exists(storage.join(settings.out, "metrics.json")):
        yield settings
        return
    from pipelines.cluster.plan import make_plan
    from pipelines.cluster.session import ray_session

    with ray_session(settings.address, settings.actors or 0) as there:
        if settings.actors is None and there.own:
            plan = make_plan(settings.caption_settings(), len(items), facts.size, there)
            settings = settings.model_copy(update={"actors": plan.actors})
        yield settings


def _score(
    settings: EvaluateSettings, data_sets: Sequence[LoadedSet], grid: Sequence[Cell], facts: ModelFacts, run_id: str
) -> list[CellResult]:
    """Score every cell, and write its predictions and the files for the publishers' judges."""
    encoder = EncoderAndMemory(settings.model, facts, settings.device)
    fixed: dict[str, dict[str, Any]] = {data.name: {} for data in data_sets}
    found = []
    for cell in grid:
        folder = cell_folder(settings.out, cell)
        answers, run = read_answers(folder, data_sets), read_run(folder) or {}
        unsure = run.get("calibration_unused") or facts.uncalibrated
        results = []
        for data in data_sets:
            result = score_answers(data, answers[data.name], encoder, settings.seed, fixed[data.name], unsure)
            result.gap = modality_gap(result, encoder.embed_text, partial(_move, settings, cell, facts, encoder))
            judged = data.judge_file(result.texts, settings.seed)
            if judged is not None:
                result.judge_file = storage.join("judge", cell.name, data.name, judged[0])
                storage.write_bytes(storage.join(settings.out, result.judge_file), judged[1].encode("utf-8"))
            results.append(result)
        rows = predictions(results, facts.fingerprint, run_id, settings.seed)
        parquet.write(storage.join(settings.out, "predictions", f"{cell.name}.parquet"), rows)
        found.append(CellResult(cell, results, run))
    return found


def _move(
    settings: EvaluateSettings, cell: Cell, facts: ModelFacts, encoder: EncoderAndMemory, audio: np.ndarray
) -> np.ndarray:
    """Audio embeddings, unit float32 [N, D], through the cell's bridge: what the mapper was given, float32 [N, D]."""
    import torch

    from mats_core.memory.bridges import Bridge, BridgeSettings
    from mats_core.model.config import SantaSettings

    given = settings.caption_settings(**cell.changes)
    _, santa = chosen_decoding(given, facts)
    values: dict[str, Any] = {"kind": given.bridge, "scale": given.projection_scale, "captions": given.retrieved}
    if given.bridge == "mean-shift":
        values["audio_mean"] = audio_mean(storage.join(settings.out, "asked"))
    moved = Bridge(BridgeSettings(**values), encoder.memory).move(torch.from_numpy(audio), SantaSettings(**santa))
    return np.asarray(moved)
