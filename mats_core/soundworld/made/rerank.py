"""What it gains to take the best of several beams by log-probability and CLAP together, on the embedded world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mats_core.batches import raised
from mats_core.model.asking import Request, ask_clips
from mats_core.model.hearing.clips import Clip
from mats_core.model.model import MatsModel
from mats_core.scoring import Item, interval, score
from mats_core.scoring.bootstrap import compute, paired_bootstrap
from mats_core.soundworld.language import Content, caption, parse_kinds
from mats_core.soundworld.made.trust import hear
from mats_core.soundworld.recipe import Recipe, clip_recipe

REFERENCES = 5
_Rows = list[tuple[float, float, float]]


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
