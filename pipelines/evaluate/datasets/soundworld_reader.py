"""Reader `soundworld`: clips of the embedded world, synthesised where they are not there yet. Always runs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from pydantic import Field

from mats_core import storage
from mats_core.scoring import Item
from mats_core.soundworld.kinds import KINDS, SAMPLE_RATE
from mats_core.soundworld.language import NUMBERS, WORDS, Content, caption, question
from mats_core.soundworld.recipe import SPLITS, Recipe, clip_recipe
from mats_core.soundworld.synth import render
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.evaluate.datasets.folder import Folder, FoundItems
from pipelines.settings.base import Settings

_CAPTIONS = 5
_CHOICE_KINDS = ("first", "last", "overlap", "pitch", "rate", "presence", "count")


class SoundworldOptions(Settings):
    """How many clips, and of which split."""

    clips: int = Field(1000, gt=0, description="How many clips; --limit takes fewer.")


def read(folder: Folder, limit: int | None = None) -> FoundItems:
    """The first clips of the split, which are written into the folder where they are not there yet.

    The same clip always has the same samples, captions and questions, whatever `limit` and machine.
    """
    definition, options = folder.definition, folder.options(SoundworldOptions)
    if definition.split not in SPLITS:
        problem = f'"{definition.split}" is not a split of the embedded world'
        raise folder.wrong("split", problem, f"choose one of {', '.join(SPLITS)}")
    found = FoundItems(folder, labels=[WORDS[kind].label for kind in KINDS])
    for i in range(options.clips)[:limit]:
        recipe = clip_recipe(definition.split, i)
        name = f"{definition.split}-{i:05d}.wav"
        uri = storage.join(folder.uri, name)
        if name in folder.found:
            folder.versions[uri] = folder.versions[folder.found[name]]
        else:
            wav = io.BytesIO()
            soundfile.write(wav, render(recipe), SAMPLE_RATE, format="WAV", subtype="PCM_16")
            storage.write_bytes(uri, wav.getvalue())
            folder.versions[uri] = storage.stat(uri).version
        found.items.append(_item(definition, recipe, i, uri))
    return found


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
        facts |= {"question": asked, "answer": answer, "category": kind}
        facts["choices"] = _choices(answer, kind, content, rng)
    return Item(
        item_id=f"{definition.split}-{index:05d}", uri=uri, task=definition.task, tag=definition.tag,
        **({"question": definition.question} | facts),
    )  # fmt: skip


def _choices(answer: str, kind: str, content: Content, rng: np.random.Generator) -> tuple[str, ...]:
    """The options of a question; wrong ones for "first" and "last" are the clip's other sounds, then any."""
    fixed = {
        "count": NUMBERS[1:],
        "overlap": ("together", "one after another"),
        "pitch": ("low", "high"),
        "rate": ("slow", "fast"),
        "presence": ("yes", "no"),
    }
    if kind in fixed:
        return fixed[kind]
    others = [WORDS[k].label for k in content.kinds if WORDS[k].label != answer]
    rest = [WORDS[k].label for k in KINDS if k not in content.kinds]
    others += [rest[i] for i in rng.permutation(len(rest))]
    return (answer, *others[:3])
