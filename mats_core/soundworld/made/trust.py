"""How far the embedded model's confidence can be trusted: calibrating it on validation clips, measuring it on others;
and what it gains to take the best of several beams by log-probability and CLAP together.

What counts as right: a caption or a list of labels, if every kind of sound that it names is in the clip, and it names
at least half of the kinds that are; the answer to a question, if it is the one that the clip's recipe gives, whatever
the case of its letters and whether it ends with a full stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.audio.levels import levels_of
from mats_core.batches import raised
from mats_core.confidence.calibration import Calibration
from mats_core.confidence.fitting import Fitted, Judged, fit_calibration
from mats_core.model.asking import Request, ask_clips
from mats_core.model.hearing.clips import Clip, embed_clips
from mats_core.model.model import MatsModel, load_model
from mats_core.scoring import Item, compute, interval, labels_right, reliability_bins, score
from mats_core.scoring.bootstrap import paired_bootstrap
from mats_core.soundworld.language import QUESTION_KINDS, Content, caption, parse_kinds, question
from mats_core.soundworld.made.measure import accuracy
from mats_core.soundworld.made.spectrograms import waveforms
from mats_core.soundworld.recipe import Recipe, clip_recipe

TASKS = {"caption": "captions", "cla_label": "labels", "QA": "questions"}
"""What is judged, and as what it is told."""
CLIPS = 6000
QUESTIONS = 2
"""Questions about each clip that a calibration is fitted on."""
JUDGED_BY = "right: names no wrong kind of sound and misses at most half; to a question, the answer itself"
REFERENCES = 5
_BATCH = 64
_Rows = list[tuple[float, float, float]]


def calibrate(
    folder: Path,
    clips: int = CLIPS,
    log: Callable[[str], None] = print,
    allow_parts: Sequence[str] = (),
    rerank: int = 0,
) -> Fitted:
    """Fit the calibration of a model directory of the embedded world on validation clips, and write it there."""
    model = load_model(str(folder), device="cpu", dtype="float32", allow_parts=allow_parts)
    recipes = [clip_recipe("validation", index) for index in range(clips)]
    judged = judged_answers(model, hear(model, "validation", clips, log), recipes, QUESTIONS, log, rerank)
    data = f"{clips} validation clips of the embedded world"
    fitted = fit_calibration(judged, model.fingerprint, data, JUDGED_BY, rerank)
    fitted.calibration.save(folder)
    return fitted


def hear(model: MatsModel, split: str, count: int, log: Callable[[str], None]) -> list[Clip]:
    """The first clips of a split, as the model hears them."""
    found: list[Clip] = []
    batch: list[np.ndarray] = []

    def embed() -> None:
        clips = raised(embed_clips(model, [(0.0, sound) for sound in batch], len(batch)))
        found.extend(replace(c, levels=levels_of(sound)) for c, sound in zip(clips, batch, strict=True))
        batch.clear()

    for sound in waveforms(split, count):
        batch.append(sound)
        if len(batch) == _BATCH or len(found) + len(batch) == count:
            embed()
            if len(found) % (8 * _BATCH) == 0:
                log(f"heard {len(found)}/{count} clips")
    return found


def judged_answers(
    model: MatsModel,
    clips: Sequence[Clip],
    recipes: Sequence[Recipe],
    questions: int = 1,
    log: Callable[[str], None] = lambda _: None,
    rerank: int = 0,
) -> list[Judged]:
    """The model's answers to every task, each right or wrong; `questions` of them about every clip."""
    found = []
    for task in TASKS:
        for turn in range(questions if task == "QA" else 1):
            asked = [_request(task, recipe, at, turn) for at, recipe in enumerate(recipes)]
            requests = [request for request, _ in asked]
            answers = raised(ask_clips(model, clips, requests, batch_size=_BATCH, rerank=rerank))
            for at, (answer, (_, truth)) in enumerate(zip(answers, asked, strict=True)):
                right = is_right(answer.text, truth)
                if answer.signs is not None:
                    found.append(Judged(task, answer.signs, right, str(at)))
        log(f"asked for {TASKS[task]}")
    return found


def _request(task: str, recipe: Recipe, at: int, turn: int) -> tuple[Request, str | Recipe]:
    """What is asked of a clip, and what is right."""
    if task != "QA":
        return Request(task), recipe
    rng = np.random.default_rng([31, at, turn] if turn else [31, at])
    content = Content.of(recipe, rng, attributes=1.0)
    asked, truth, _ = question(content, rng, only=QUESTION_KINDS[(at + turn) % len(QUESTION_KINDS)])
    return Request("QA", asked), truth


def is_right(text: str, truth: str | Recipe) -> bool:
    """Whether an answer is right, see above; truth: the answer to a question, or the recipe of what is heard."""
    if isinstance(truth, str):
        return accuracy([text], [truth]) == 1.0
    named, there = set(parse_kinds(text)), set(truth.labels())
    return labels_right(len(named & there), len(named), len(there))


def trust_numbers(judged: Sequence[Judged], calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Task → calibration error, AUROC with its 95 % interval (both None where all are right, or all wrong), share
    right, number of answers, and the bins of a reliability picture (confidence, share right, answers)."""
    numbers: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        chances = ((calibration.confidence(task, each.signs), each.right) for each in judged if each.task == task)
        rows = np.array([pair for pair in chances if pair[0] is not None], np.float64).reshape(-1, 2)
        if len(rows):
            told, share = rows.tolist(), float(rows[:, 1].mean())
            both = 0 < share < 1
            numbers[task] = {
                "ece": compute("calibration_error", told), "auroc": compute("auroc", told) if both else None,
                "auroc_interval": list(interval("auroc", told)) if both else None, "right": share,
                "answers": len(rows), "bins": reliability_bins(rows),
            }  # fmt: skip
    return numbers


def rerank_numbers(model: MatsModel, clips: int, beams: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Label F1 of captions and labels, and CIDEr-D of captions, of the first beam and of the best of `beams`: each
    figure with its 95 % interval, and the gain with its own, over the same test clips."""
    recipes = [clip_recipe("test", index) for index in range(clips)]
    heard = hear(model, "test", clips, log)
    found: dict[str, Any] = {"clips": clips, "beams": beams}
    for task, name in (("caption", "captions"), ("cla_label", "labels")):
        first, best = (_texts(model, heard, task, count) for count in (0, beams))
        rows = [_hits(texts, recipes) for texts in (first, best)]
        found[f"{name}, label F1"] = _compared("micro_f1", *rows)
        found[f"{name}, changed"] = sum(a != b for a, b in zip(first, best, strict=True)) / clips
        if task == "caption":
            items = [_item(recipe, at) for at, recipe in enumerate(recipes)]
            metrics = [score("caption", items, texts, metrics=["cider_d"]).metrics for texts in (first, best)]
            if all("cider_d" in each for each in metrics):
                before, after = (each["cider_d"] for each in metrics)
                gain = paired_bootstrap(before.values, after.values)
                found["captions, CIDEr-D"] = {
                    "first": [before.value, before.low, before.high], "best": [after.value, after.low, after.high],
                    "gain": list(gain[:3]),
                }  # fmt: skip
        log(f"{name} done")
    return found


def rerank_table(found: dict[str, Any]) -> str:
    """The numbers as a table for people, in Markdown."""

    def shown(value: Sequence[float]) -> str:
        return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"

    lines = [f"| {found['clips']} test clips | first beam | best of {found['beams']} | gain |", "|---|---|---|---|"]
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(f"| {name} | {shown(value['first'])} | {shown(value['best'])} | {shown(value['gain'])} |")
    return "\n".join(lines)


def _texts(model: MatsModel, clips: Sequence[Clip], task: str, beams: int) -> list[str]:
    requests = [Request(task)] * len(clips)
    return [each.text for each in raised(ask_clips(model, clips, requests, batch_size=64, score=False, rerank=beams))]


def _hits(texts: Sequence[str], recipes: Sequence[Recipe]) -> _Rows:
    """Of each answer: kinds named right, kinds named, kinds there are."""
    pairs = [(set(parse_kinds(text)), set(recipe.labels())) for text, recipe in zip(texts, recipes, strict=True)]
    return [(float(len(said & true)), float(len(said)), float(len(true))) for said, true in pairs]


def _compared(statistic: str, first: _Rows, best: _Rows) -> dict[str, list[float]]:
    gain = paired_bootstrap(first, best, statistic=statistic)
    pairs = (("first", first), ("best", best))
    own = {name: [compute(statistic, rows), *interval(statistic, rows)] for name, rows in pairs}
    return {**own, "gain": list(gain[:3])}


def _item(recipe: Recipe, at: int) -> Item:
    """The clip with its reference captions, as the evaluation data set has them."""
    rngs = (np.random.default_rng([recipe.seed, 61, each]) for each in range(REFERENCES))
    return Item(str(at), "", "caption", references=tuple(caption(Content.of(recipe, rng), rng) for rng in rngs))
