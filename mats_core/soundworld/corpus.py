"""The text corpus of the embedded world: records written from recipes that are never synthesised. No torch here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mats_core import storage
from mats_core.soundworld.language import Content, corpus_record
from mats_core.soundworld.recipe import clip_recipe

TASK_SHARES = {"caption": 0.4, "QA": 0.3, "cla_label": 0.18, "music_caption": 0.12}
RECORDS = 16_000
ROUNDS = 2


def text_record(
    index: int, round_: int = 0, split: str = "text", stream: int = 17, kinds: list[str] | None = None
) -> dict[str, str]:
    """Record `index` of the text corpus of the embedded world, in wording `round_`.

    Written from recipes of the `text` split, which are never synthesised, unless another is named (with a stream of
    random numbers of its own). kinds: of clips that have these kinds of sound alone; a question may name others.
    """
    rng = np.random.default_rng([stream, index, round_])
    task = str(rng.choice(list(TASK_SHARES), p=list(TASK_SHARES.values())))
    return corpus_record(Content.of(clip_recipe(split, index, kinds), rng), rng, task)


def write_corpus(path: Path, records: int = RECORDS, rounds: int = ROUNDS) -> None:
    """All records as JSONL, for `mats embed-text` and `mats train`; whole, or not there at all. Raises StorageError."""
    rows = (text_record(index, turn) for turn in range(rounds) for index in range(records))
    storage.write_bytes(str(path), "".join(json.dumps(row) + "\n" for row in rows).encode())
