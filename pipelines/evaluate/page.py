"""An evaluation as one self-contained HTML page: figures beside baselines and earlier runs, classes, gap, cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.scoring import Metric, Scores
from pipelines.evaluate.history import History
from pipelines.evaluate.scores import Evaluation, Gap, SetResult, best_cell, truths, upward
from pipelines.pages.media import PREVIEW_SECONDS, add_media
from pipelines.pages.render import render_page
from pipelines.settings.evaluate import EvaluateSettings

PAGE = "report.html"
LAST_RUNS = 3
MOST_CLASSES = 60
MOST_CONFUSED = 26
EXAMPLES = 3
MEDIA_BYTES = 24_000_000
PLANE = (34, 10, 296, 208)
"""Left, top, right and bottom of the plane in a picture of 320 × 240."""
GAP_COLOURS = {"text": "var(--right)", "audio": "var(--accent)", "moved": "var(--missed)"}


def write_page(settings: EvaluateSettings, done: Evaluation, history: History | None) -> None:
    """Write OUT/report.html."""
    best = best_cell(done.cells)
    earlier = _earlier(history, done.run_id)
    sections = [_section(result, earlier, settings.players) for result in best.results]
    shown = [case for each in sections for _, cases in each["cases"] for case in cases]
    add_media(shown, PREVIEW_SECONDS, MEDIA_BYTES, 1)
    model = storage.public_uri(settings.model)
    page = render_page(
        "evaluation.html.j2", title=f"Evaluation of {'/'.join(model.rstrip('/').split('/')[-2:])}", model=model,
        done=done, best=best, sections=sections, grid=_grid(done) if len(done.cells) > 1 else None,
        tolerance=settings.tolerance, preview_seconds=PREVIEW_SECONDS,
    )  # fmt: skip
    storage.write_bytes(storage.join(settings.out, PAGE), page)


def _earlier(history: History | None, run_id: str) -> list[dict[str, Any]]:
    """The last runs of the history, newest first: id, date, roles, figures {(data set, metric): value}."""
    if history is None:
        return []
    runs: dict[str, dict[str, Any]] = {}
    for row in history.runs():
        if row["run_id"] != run_id and not row["cell"]:
            run = runs.setdefault(row["run_id"], {"id": row["run_id"], "date": row["started"][:10], "figures": {}})
            run["figures"][row["benchmark"], row["metric"]] = row["value"]
    accepted = [name for name in history.accepted() if name != run_id]
    roles = {"pinned": history.pinned(), "accepted": accepted[-1] if accepted else None}
    chosen = {*list(runs)[-LAST_RUNS:], *roles.values()}
    found = [run for name, run in reversed(runs.items()) if name in chosen]
    for run in found:
        run["roles"] = [role for role, name in roles.items() if name == run["id"]]
    return found


def _section(result: SetResult, earlier: Sequence[dict[str, Any]], players: int) -> dict[str, Any]:
    """What the template shows of one data set, besides its result."""
    details, before = result.scores.details, [r for r in earlier if any(k[0] == result.data.name for k in r["figures"])]
    pairs = zip(result.data.items, result.answers, strict=True)
    failed = [(item.item_id, answer.error) for item, answer in pairs if answer.error]
    classes = sorted((details.get("per_label") or {}).items(), key=lambda pair: (-pair[1], pair[0]))  # F1, best first
    half = MOST_CLASSES // 2
    return {
        "result": result, "earlier": before, "left_out": _grouped([*result.data.left_out, *failed]),
        "uncounted": _uncounted(result.scores),
        "rows": [_row(metric, result, before) for metric in result.scores.metrics.values()],
        "classes": classes if len(classes) <= MOST_CLASSES else [*classes[:half], *classes[-half:]],
        "confusion": _confusion(details.get("confusion") or {}), "histogram": _histogram(result.word_counts),
        "confidence": _confidence(details.get("confidence")), "gap": _gap(result.gap), "cases": _cases(result, players),
    }  # fmt: skip


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


def _row(metric: Metric, result: SetResult, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A metric beside the baselines and earlier runs; top: the number at the end of its bar."""
    others = [getattr(scores.metrics.get(metric.name), "value", None) for scores in result.baselines.values()]
    others += [run["figures"].get((result.data.name, metric.name)) for run in earlier]
    most = max((v for v in (*others, metric.value, metric.high) if v is not None), default=0.0)
    return {"metric": metric, "others": others, "top": 1.0 if most <= 1.0 else most * 1.05}


def _confusion(table: dict[str, dict[str, int]]) -> dict[str, Any] | None:
    """A matrix of up to MOST_CONFUSED labels (those confused most often), rows as shares of a true label's items."""
    if not table:
        return None
    wrong = {true: sum(n for guess, n in row.items() if guess != true) for true, row in table.items()}
    for row in table.values():
        for guess, n in row.items():
            if guess in wrong and guess not in row:
                wrong[guess] += n
    names = sorted(sorted(wrong, key=lambda label: (-wrong[label], label))[:MOST_CONFUSED])
    cells = {true: [table[true].get(guess, 0) for guess in names] for true in names}
    totals = {true: sum(table[true].values()) for true in names}
    rows = [{"true": t, "cells": cells[t], "rest": totals[t] - sum(cells[t]), "total": totals[t]} for t in names]
    pairs = [(n, true, guess or "no label") for true, row in table.items() for guess, n in row.items() if guess != true]
    return {"names": names, "rows": rows, "pairs": sorted(pairs, reverse=True)[:8]}


def _histogram(counts: Sequence[int]) -> list[tuple[str, int, float]]:
    """Answers by their number of words: (label, count, share of the largest bar)."""
    if not counts:
        return []
    step = max(1, math.ceil((max(counts) + 1) / 16))
    bars = np.bincount(np.array(counts) // step)
    labels = [str(i) if step == 1 else f"{i * step}–{(i + 1) * step - 1}" for i in range(len(bars))]
    shown = zip(labels, bars.tolist(), (bars / bars.max()).tolist(), strict=True)
    return list(shown)[int(np.flatnonzero(bars)[0]) :]


def _confidence(facts: dict[str, Any] | None) -> dict[str, Any] | None:
    """Two pictures in PLANE: what confidence says beside what is right, and what is wrong of what is kept."""
    if facts is None:
        return None
    left, top, right, bottom = PLANE

    def placed(points: Sequence[tuple[float, float]], most: float = 1.0) -> list[tuple[float, float]]:
        return [(round(left + x * (right - left), 1), round(bottom - y / most * (bottom - top), 1)) for x, y in points]

    bins = facts["bins"]
    largest = max(count for _, _, count in bins)
    dots = []
    for (x, y), (sure, true, count) in zip(placed([(a, b) for a, b, _ in bins]), bins, strict=True):
        size = round(2.5 + 5.5 * math.sqrt(count / largest), 1)
        dots.append({"x": x, "y": y, "size": size, "count": count, "said": sure, "right": true})
    curve = [(0.0, facts["curve"][0][1]), *((share, risk) for share, risk, _ in facts["curve"])]
    worst = max(risk for _, risk in curve)
    most = next(each for each in (0.05, 0.1, 0.2, 0.5, 1.0) if worst <= each)
    return {
        **facts, "plane": PLANE, "dots": dots, "line": placed(curve, most), "most": most,
        "marks": [(share, *placed([(share, 0.0)])[0]) for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "all": placed([(1.0, 1 - facts["right"])], most)[0],
    }  # fmt: skip


def _gap(gap: Gap | None) -> list[dict[str, Any]]:
    """Two scatter plots on the same axes: texts and audio before, texts and audio after."""
    if gap is None:
        return []
    every = np.array([point for points in gap.points.values() for point in points])
    low, span = every.min(axis=0), np.maximum(np.ptp(every, axis=0), 1e-9)

    def placed(name: str) -> list[tuple[float, float]]:
        scaled = (np.array(gap.points[name]) - low) / span
        return [(round(8 + 304 * float(x), 1), round(8 + 224 * (1 - float(y)), 1)) for x, y in scaled]

    panels = []
    for title, name in (("before the bridge", "audio"), ("after the bridge", "moved")):
        sets = [(GAP_COLOURS[key], placed(key)) for key in ("text", name)]
        centres = [(c, np.mean(points, axis=0).round(1).tolist()) for c, points in sets]
        panels.append({"title": title, "name": name, "sets": sets, "centres": centres})
    return panels


def _cases(result: SetResult, players: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """The worst and the best items by the leading metric, as `add_media` takes them, by title."""
    metric = result.leading
    if metric is None:
        return []
    sign = 1 if metric.higher_is_better else -1
    values = sorted((sign * value, i) for i, value in enumerate(metric.values) if value is not None)
    half = players // 2
    worst, rest = values[: players - half], values[players - half :]
    best = sorted(rest, key=lambda pair: (-pair[0], pair[1]))[:half]
    groups = (("Worst", worst), ("Best", best))
    return [(title, [_case(result, i, abs(value)) for value, i in chosen]) for title, chosen in groups if chosen]


def _case(result: SetResult, index: int, value: float) -> dict[str, Any]:
    item, answer = result.data.items[index], result.answers[index]
    matched = result.scores.details.get("matched") or []
    text = next((text for text in answer.texts if text is not None), None)
    right = truths(item, result.data.definition.kind)[:5]
    taken = matched[index] if index < len(matched) else None
    return {
        "uri": item.uri, "name": storage.public_uri(item.uri).rsplit("/", 1)[-1], "item": item, "value": value,
        "truth": right, "text": text,
        "parts": [
            {"start": item.start_s or 0.0, "length": answer.seconds or None, "only_channel": item.only_channel}
        ],
        "confidence": answer.confidence[0] if answer.confidence else None,
        "others": [other for other in answer.texts[1:] if other is not None and other != text],
        "matched": taken if taken and text and taken.lower() != text.strip().rstrip(".").lower() else None,
    }  # fmt: skip


def _grid(done: Evaluation) -> list[dict[str, Any]]:
    """A data set each: in every cell its leading metric, whether that is the best, and the cosine of audio to text."""
    columns = []
    for results in zip(*(cell.results for cell in done.cells), strict=True):
        metrics = [result.leading for result in results]
        most = max(map(upward, metrics))
        names = [metric.name for metric in metrics if metric is not None]
        column = {"benchmark": results[0].data.name, "metric": names[0] if names else "", "metrics": metrics}
        column["best"] = [metric is not None and upward(metric) == most for metric in metrics]
        column["gaps"] = [None if result.gap is None else result.gap.cosine["moved"] for result in results]
        columns.append(column)
    return columns
