"""Reader `soundworld`: clips of the embedded world, synthesised where they are not there yet. Always runs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.scoring import Item, LabelSet
from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
from mats_core.soundworld.language import NUMBERS, WORDS, Content, caption, question
from mats_core.soundworld.recipe import SPLITS, Recipe, clip_recipe
from mats_core.soundworld.synth import render
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.settings.base import build

_CAPTIONS = 5
_CHOICE_KINDS = ("first", "last", "overlap", "pitch", "rate", "presence", "count")


class SoundworldOptions(BaseModel):
    """How many clips, and of which split."""

    model_config = ConfigDict(extra="forbid")

    clips: int = Field(1000, gt=0, description="How many clips; --limit takes fewer.")


def read(definition: EvaluationSet, root: str, limit: int | None = None) -> tuple[list[Item], list[str]]:
    """The first clips of the split, written under ``root`` where they are not there yet, and their versions.

    The same clip always has the same samples, captions and questions, whatever `limit` and machine.
    """
    options = _options(definition)
    count = options.clips if limit is None else min(limit, options.clips)
    folder = storage.join(root, definition.folder or definition.name)
    storage.make_dirs(folder)
    there = {info.path: info.version for info in storage.list_files(folder)}
    items, names, new = [], [], False
    for i in range(count):
        recipe = clip_recipe(definition.split, i)
        name = f"{definition.split}-{i:05d}.wav"
        uri = storage.join(folder, name)
        if name not in there:
            storage.write_bytes(uri, _wav(recipe))
            new = True
        names.append(name)
        items.append(_item(definition, recipe, i, uri))
    if new:
        there = {info.path: info.version for info in storage.list_files(folder)}
    return items, [there[name] for name in names]


def label_set(definition: EvaluationSet) -> LabelSet:
    """The kinds of sound, by the words a label list uses."""
    if definition.kind not in ("label", "labels"):
        return LabelSet()
    return definition.label_set([WORDS[kind].label for kind in KINDS])


def _options(definition: EvaluationSet) -> SoundworldOptions:
    options = build(SoundworldOptions, definition.options)
    if definition.split not in SPLITS:
        problem = f'"{definition.split}" is not a split of the embedded world'
        raise SettingsError(f"benchmarks: {definition.name}: split", problem, f"choose one of {', '.join(SPLITS)}")
    return options


def _item(definition: EvaluationSet, recipe: Recipe, index: int, uri: str) -> Item:
    facts: dict[str, Any] = {
        "references": tuple(
            caption(Content.of(recipe, rng), rng)
            for rng in (np.random.default_rng([recipe.seed, 61, k]) for k in range(_CAPTIONS))
        ),
        "labels": tuple(sorted(WORDS[kind].label for kind in recipe.labels())),
        "category": recipe.layout,
    }
    if definition.kind == "choice":
        rng = np.random.default_rng([recipe.seed, 62])
        content = Content.of(recipe, rng, attributes=1.0)
        asked, answer, kind = question(content, rng, only=_CHOICE_KINDS[index % len(_CHOICE_KINDS)])
        if kind in ("which", "group"):
            asked, answer, kind = question(content, rng, only="count")
        facts |= {
            "question": asked,
            "answer": answer,
            "category": kind,
            "choices": _choices(answer, kind, content, rng),
        }
    return Item(
        item_id=f"{definition.split}-{index:05d}", uri=uri, task=definition.task, tag=definition.tag,
        **({"question": definition.question} | facts),
    )  # fmt: skip


def _choices(answer: str, kind: str, content: Content, rng: np.random.Generator) -> tuple[str, ...]:
    """The options of a question; wrong ones for "first" and "last" are the clip's other sounds, then any."""
    if kind == "count":
        return NUMBERS[1:]
    if kind == "overlap":
        return ("together", "one after another")
    if kind in ("pitch", "rate", "presence"):
        return {"pitch": ("low", "high"), "rate": ("slow", "fast"), "presence": ("yes", "no")}[kind]
    others = [WORDS[k].label for k in content.kinds if WORDS[k].label != answer]
    rest = [WORDS[k].label for k in KINDS if k not in content.kinds]
    others += [rest[i] for i in rng.permutation(len(rest))]
    return (answer, *others[:3])


def _wav(recipe: Recipe) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, render(recipe), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
