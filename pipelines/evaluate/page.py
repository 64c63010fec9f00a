"""An evaluation as one self-contained HTML page: figures beside baselines and earlier runs, classes, gap, cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from mats_core import storage
from mats_core.scoring import Metric, Scores
from pipelines.evaluate.history import History
from pipelines.evaluate.results import Evaluation, Gap, SetResult, best_cell, upward
from pipelines.evaluate.scores import truths
from pipelines.pages.media import add_media
from pipelines.pages.render import render_page
from pipelines.settings.evaluate import EvaluateSettings

PAGE = "report.html"
LAST_RUNS = 3
MOST_CLASSES = 60
MOST_CONFUSED = 26
EXAMPLES = 3
PREVIEW_SECONDS = 20.0
MEDIA_BYTES = 8_500_000
GAP_COLOURS = {"text": "var(--right)", "audio": "var(--accent)", "moved": "var(--missed)"}


def write_page(settings: EvaluateSettings, done: Evaluation, history: History | None) -> str:
    """Write OUT/report.html and return its URI."""
    best = best_cell(done.cells)
    earlier = _earlier(history, done.run_id)
    sections = [_section(result, earlier, settings.players) for result in best.results]
    cases = [case for section in sections for group in section["cases"] for case in group["cases"]]
    add_media(cases, PREVIEW_SECONDS, MEDIA_BYTES, 1)
    page = render_page(
        "evaluation.html.j2",
        title=f"Evaluation of {_name(settings.model)}",
        model=storage.public_uri(settings.model),
        done=done,
        best=best,
        sections=sections,
        grid=_grid(done) if len(done.cells) > 1 else None,
        items=sum(len(result.data.items) for result in best.results),
        speed=_speed(best.run),
        verdict=done.verdict,
        tolerance=settings.tolerance,
        preview_seconds=PREVIEW_SECONDS,
        versions=best.run.get("versions") or {},
    )
    uri = storage.join(settings.out, PAGE)
    storage.write_bytes(uri, page)
    return uri


def _name(model: str) -> str:
    name = storage.public_uri(model).rstrip("/")
    parts = name.split("/")
    return name if len(parts) < 2 else "/".join(parts[-2:])


def _earlier(history: History | None, run_id: str) -> list[dict[str, Any]]:
    """The last runs of the history, newest first: id, date, roles, {(data set, metric): value}."""
    if history is None:
        return []
    runs: dict[str, dict[str, Any]] = {}
    for row in history.runs():
        if row["run_id"] == run_id or row["cell"]:
            continue
        run = runs.setdefault(row["run_id"], {"id": row["run_id"], "date": row["started"][:10], "values": {}})
        run["values"][row["benchmark"], row["metric"]] = row["value"]
    accepted = [name for name in history.accepted() if name != run_id]
    roles = {"pinned": history.pinned(), "accepted": accepted[-1] if accepted else None}
    chosen = list(runs)[-LAST_RUNS:]
    chosen += [name for name in roles.values() if name in runs and name not in chosen]
    found = [runs[name] for name in sorted(chosen, key=list(runs).index, reverse=True)]
    for run in found:
        run["roles"] = [role for role, name in roles.items() if name == run["id"]]
    return found


def _section(result: SetResult, earlier: Sequence[dict[str, Any]], players: int) -> dict[str, Any]:
    """What the template shows of one data set."""
    definition, scores = result.data.definition, result.scores
    before = [run for run in earlier if any(key[0] == definition.name for key in run["values"])]
    details = scores.details
    pairs = zip(result.data.items, result.answers, strict=True)
    failed = [(item.item_id, answer.error) for item, answer in pairs if answer.error]
    return {
        "definition": definition,
        "total": len(result.data.items),
        "answered": round(sum(result.answered)),
        "prompt": _prompt(result),
        "judge_file": quote(result.judge_file),
        "left_out": _grouped([*result.data.left_out, *failed]),
        "uncounted": _uncounted(scores),
        "baselines": list(result.baselines),
        "earlier": before,
        "rows": [_row(name, metric, result, before) for name, metric in scores.metrics.items()],
        "unavailable": scores.unavailable,
        "classes": _classes(details.get("per_label") or {}),
        "confusion": _confusion(details.get("confusion") or {}),
        "categories": details.get("per_category") or {},
        "match": details.get("match") or {},
        "orders": details.get("orders") or [],
        "first_option": details.get("first_option"),
        "words": result.lengths,
        "histogram": _histogram(result),
        "gap": _gap(result.gap),
        "cases": _cases(result, players),
        "leading": result.leading,
    }


def _prompt(result: SetResult) -> str:
    """What the model is asked: the tag, and the words for all items ("the item's question" where they differ)."""
    definition = result.data.definition
    own = "the item's own question" if definition.task == "QA" else "the model's own instruction"
    return f"{definition.tag} {definition.question or own}".strip()


def _grouped(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """(item id, why) by kind of reason, which ends at the first colon: kind, count and EXAMPLES of them, most first."""
    kinds: dict[str, list[str]] = {}
    for item_id, why in pairs:
        kind, _, detail = why.partition(": ")
        kinds.setdefault(kind, []).append(f"{item_id} ({detail})" if detail else item_id)
    groups = [{"why": why, "count": len(each), "examples": each[:EXAMPLES]} for why, each in kinds.items()]
    return sorted(groups, key=lambda group: -len(kinds[group["why"]]))


def _uncounted(scores: Scores) -> list[dict[str, Any]]:
    """Which items metrics leave out and why; metrics that leave out the same ones are named together."""
    names: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, metric in scores.metrics.items():
        if metric.left_out:
            names.setdefault(metric.left_out, []).append(name)
    return [{"metrics": ", ".join(own), **group} for pairs, own in names.items() for group in _grouped(pairs)]


def _row(name: str, metric: Metric, result: SetResult, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    others = []
    for scores in result.baselines.values():
        found = scores.metrics.get(name)
        others.append(None if found is None else found.value)
    past = [run["values"].get((result.data.name, name)) for run in earlier]
    known = [v for v in (*others, *past, metric.value, metric.high) if v is not None]
    top = 1.0 if all(v <= 1.0 for v in known) else max(known) * 1.05
    return {"name": name, "metric": metric, "baselines": others, "earlier": past, "top": top}


def _classes(per_label: dict[str, float]) -> dict[str, Any]:
    """F1 a label, best first; of very many the best and the worst."""
    ranked = sorted(per_label.items(), key=lambda pair: (-pair[1], pair[0]))
    half = MOST_CLASSES // 2
    shown = ranked if len(ranked) <= MOST_CLASSES else [*ranked[:half], *ranked[-half:]]
    return {"shown": shown, "all": len(ranked)}


def _confusion(table: dict[str, dict[str, int]]) -> dict[str, Any] | None:
    """A matrix of up to MOST_CONFUSED labels (those confused most often), rows as shares of a true label's items."""
    if not table:
        return None
    wrong = {true: sum(n for guess, n in row.items() if guess != true) for true, row in table.items()}
    for row in table.values():
        for guess, n in row.items():
            if guess in wrong and guess not in row:
                wrong[guess] += n
    chosen = sorted(wrong, key=lambda label: (-wrong[label], label))[:MOST_CONFUSED]
    names = sorted(chosen)
    rows = []
    for true in names:
        row = table[true]
        total = sum(row.values())
        cells = [(row.get(guess, 0), row.get(guess, 0) / total) for guess in names]
        rest = total - sum(n for n, _ in cells)
        rows.append({"true": true, "cells": cells, "rest": rest, "rest_share": rest / total, "total": total})
    pairs = [(n, true, guess or "no label") for true, row in table.items() for guess, n in row.items() if guess != true]
    return {"names": names, "rows": rows, "pairs": sorted(pairs, reverse=True)[:8], "all": len(table)}


def _histogram(result: SetResult) -> list[tuple[str, int, float]]:
    """Answers by their number of words: (label, count, share of the largest bar)."""
    counts = result.word_counts
    if not counts:
        return []
    step = max(1, int(np.ceil((max(counts) + 1) / 16)))
    bars = np.bincount(np.array(counts) // step)
    first = int(np.flatnonzero(bars)[0])
    return [
        (str(i * step) if step == 1 else f"{i * step}–{(i + 1) * step - 1}", int(n), float(n / bars.max()))
        for i, n in enumerate(bars)
        if i >= first
    ]


def _gap(gap: Gap | None) -> dict[str, Any] | None:
    """Two scatter plots on the same axes: texts and audio before, texts and audio after."""
    if gap is None:
        return None
    every = np.array([point for points in gap.points.values() for point in points])
    low, span = every.min(axis=0), np.maximum(np.ptp(every, axis=0), 1e-9)

    def placed(name: str) -> list[tuple[float, float]]:
        scaled = (np.array(gap.points[name]) - low) / span
        return [(round(8 + 304 * float(x), 1), round(8 + 224 * (1 - float(y)), 1)) for x, y in scaled]

    panels = []
    for title, name in (("before the bridge", "audio"), ("after the bridge", "moved")):
        sets = [(key, GAP_COLOURS[key], placed(key)) for key in ("text", name)]
        centres = [(c, np.mean(points, axis=0).round(1).tolist()) for _, c, points in sets]
        facts = {"cosine": gap.cosine[name], "distance": gap.distance[name]}
        panels.append({"title": title, "sets": sets, "centres": centres, **facts})
    return {"panels": panels, "sounds": len(gap.points["text"])}


def _cases(result: SetResult, players: int) -> list[dict[str, Any]]:
    """The worst and the best items by the leading metric, as `add_media` takes them."""
    metric = result.leading
    if metric is None or not players:
        return []
    values = [(value, i) for i, value in enumerate(metric.values) if value is not None]
    if not metric.higher_is_better:
        values = [(-value, i) for value, i in values]
    half = players // 2
    worst = sorted(values)[: players - half]
    best = [pair for pair in sorted(values, key=lambda pair: (-pair[0], pair[1])) if pair not in worst][:half]
    groups = []
    for title, chosen in (("Worst", worst), ("Best", best)):
        cases = [_case(result, i, metric, abs(value)) for value, i in chosen]
        groups.append({"title": title, "metric": metric.name, "cases": cases})
    return [group for group in groups if group["cases"]]


def _case(result: SetResult, index: int, metric: Metric, value: float) -> dict[str, Any]:
    item, answer = result.data.items[index], result.answers[index]
    matched = result.scores.details.get("matched") or []
    text = next((text for text in answer.texts if text is not None), None)
    taken = matched[index] if index < len(matched) else None
    part = {"start": 0.0, "length": answer.seconds or None, "error_code": None, "picture": None, "sound": None}
    return {
        "uri": item.uri,
        "name": storage.public_uri(item.uri).rsplit("/", 1)[-1],
        "item": item.item_id,
        "category": item.category,
        "question": item.question if item.task == "QA" else "",
        "choices": item.choices,
        "truth": truths(item)[:5],
        "text": text,
        "others": [other for other in answer.texts[1:] if other is not None and other != text],
        "matched": taken if taken and text and taken.lower() != text.strip().rstrip(".").lower() else None,
        "value": value,
        "metric": metric.name,
        "parts": [part],
    }


def _speed(run: dict[str, Any]) -> dict[str, Any]:
    """Throughput and seconds of work a clip by stage, out of a cell's `_run.json`."""
    rows = run.get("rows_new") or 0
    stages = {name.removesuffix("_s"): s / rows for name, s in (run.get("stage_s") or {}).items() if rows and s}
    steady = run.get("steady") or {}
    return {
        "rows_per_s": steady.get("rows_per_s") or run.get("rows_per_s"),
        "real_time": steady.get("real_time_factor"),
        "wall_s": run.get("wall_s"),
        "start_s": run.get("start_s"),
        "stages": {name: s for name, s in stages.items() if name != "write"},
    }


def _grid(done: Evaluation) -> dict[str, Any]:
    """A table of cells: the values of each axis, and for each data set its leading metric; the best are marked."""
    axes = list(done.cells[0].cell.values)
    columns = []
    for index, result in enumerate(done.cells[0].results):
        metrics = [cell.results[index].leading for cell in done.cells]
        signed = [upward(metric) for metric in metrics]
        gaps = [cell.results[index].gap for cell in done.cells]
        first = next((m for m in metrics if m is not None), None)
        columns.append(
            {
                "benchmark": result.data.name,
                "metric": first.name if first else "",
                "metrics": metrics,
                "best": max(signed),
                "signed": signed,
                "gaps": [None if gap is None else gap.cosine["moved"] for gap in gaps],
            }
        )
    return {"axes": axes, "cells": [cell.cell for cell in done.cells], "columns": columns}
