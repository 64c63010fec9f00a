"""The text corpus of the embedded world: records written from recipes that are never synthesised. No torch here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mats_core import storage
from mats_core.soundworld.language import Content, corpus_record
from mats_core.soundworld.recipe import clip_recipe

TASK_SHARES = {"caption": 0.26, "QA": 0.54, "cla_label": 0.12, "music_caption": 0.08}
QUESTION_SHARES = {
    "which": 0.12, "count": 0.1, "first": 0.2, "last": 0.2, "presence": 0.24, "group": 0.1, "overlap": 0.12,
    "pitch": 0.12, "rate": 0.12,
}  # fmt: skip
"""How often each kind is asked, of those that a clip can be asked: what must be looked up more often than what is told
in every caption."""
RECORDS = 48_000
ROUNDS = 2


def text_record(
    index: int, round_: int = 0, split: str = "text", stream: int = 17, kinds: list[str] | None = None
) -> dict[str, str]:
    """Record `index` of the text corpus of the embedded world, in wording `round_`.

    Written from recipes of the `text` split, which are never synthesised, unless another is named (with a stream of
    random numbers of its own). kinds: of clips that have these kinds of sound alone; a question may name others.
    """
    return text_content_and_record(index, round_, split, stream, kinds)[1]


def text_content_and_record(
    index: int, round_: int = 0, split: str = "text", stream: int = 17, kinds: list[str] | None = None
) -> tuple[Content, dict[str, str]]:
    """What `text_record` writes, and the facts that it writes it of."""
    rng = np.random.default_rng([stream, index, round_])
    task = str(rng.choice(list(TASK_SHARES), p=list(TASK_SHARES.values())))
    content = Content.of(clip_recipe(split, index, kinds), rng)
    return content, corpus_record(content, rng, task, QUESTION_SHARES)


def write_corpus(path: Path, records: int = RECORDS, rounds: int = ROUNDS) -> None:
    """All records as JSONL, for `mats embed-text` and `mats train`; whole, or not there at all. Raises StorageError."""
    rows = (text_record(index, turn) for turn in range(rounds) for index in range(records))
    storage.write_bytes(str(path), "".join(json.dumps(row) + "\n" for row in rows).encode())
