"""The text corpus of the embedded world: records written from recipes that are never synthesised. No torch here."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mats_core import storage
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, Sound, caption, corpus_record
from mats_core.soundworld.recipe import SPLITS, clip_recipe, sample_recipe

TASK_SHARES = {"caption": 0.26, "QA": 0.54, "cla_label": 0.12, "music_caption": 0.08}
QUESTION_SHARES = {
    "which": 0.12, "count": 0.1, "first": 0.4, "last": 0.8, "presence": 0.24, "group": 0.1, "overlap": 0.16,
    "pitch": 0.12, "rate": 0.12,
}  # fmt: skip
"""How often each kind is asked, of those that a clip can be asked (`question`): what must be looked up more often than
what is told in every caption, and most often what takes longest to learn, of which few clips can be asked."""
RECORDS = 48_000
ROUNDS = 2
MINUTES = RECORDS // 3


def text_record(
    index: int, round_: int = 0, split: str = "text", stream: int = 17, kinds: list[str] | None = None,
    asking: int = 0,
) -> dict[str, str]:  # fmt: skip
    """Record `index` of the text corpus of the embedded world, in wording `round_`.

    Written from recipes of the `text` split, which are never synthesised, unless another is named (with a stream of
    random numbers of its own). kinds: of clips that have these kinds of sound alone; a question may name others.
    asking: from 1 on, the same caption is asked for something else.
    """
    return text_content_and_record(index, round_, split, stream, kinds, asking)[1]


def text_content_and_record(
    index: int, round_: int = 0, split: str = "text", stream: int = 17, kinds: list[str] | None = None,
    asking: int = 0,
) -> tuple[Content, dict[str, str]]:  # fmt: skip
    """What `text_record` writes, and the facts that it writes it of."""
    rng = np.random.default_rng([stream, index, round_])
    task = _task(rng)
    content = Content.of(clip_recipe(split, index, kinds), rng)
    record = corpus_record(content, rng, task, QUESTION_SHARES)
    if asking:
        other = np.random.default_rng([stream, index, round_, asking])
        record = corpus_record(content, other, _task(other), QUESTION_SHARES) | {"caption": record["caption"]}
    return content, record


def _task(rng: np.random.Generator) -> str:
    return str(rng.choice(list(TASK_SHARES), p=list(TASK_SHARES.values())))


def minute_record(index: int) -> dict[str, Any]:
    """Record `index` of long sounds: its caption is a list, what the sound's windows would be captioned as one by one.

    A minute is heard as the mean of its windows, which is like no caption; the mean of such captions is like it
    (`embed_captions`). One to three kinds of sound come and go in 2 to 12 windows.
    """
    rng = np.random.default_rng([41, index])
    count = int(rng.choice([1, 2, 3], p=[0.15, 0.25, 0.6]))
    kinds = [str(kind) for kind in rng.choice(list(KINDS), size=count, replace=False)]
    windows = range(int(rng.integers(2, 13)))
    heard = [Content.of(sample_recipe([SPLITS["minutes"], index, window], kinds=kinds), rng) for window in windows]
    there = [kind for kind in kinds if any(kind in content.kinds for content in heard)]
    task = _task(rng)
    record = corpus_record(Content("minute", tuple(map(Sound, there))), rng, task, QUESTION_SHARES)
    captions = [caption(content, rng) for content in heard]
    return {**record, "caption": captions, "source": "soundworld-minutes"}


def write_corpus(path: Path, records: int = RECORDS, rounds: int = ROUNDS, minutes: int | None = None) -> None:
    """All records as JSONL, for `mats embed-text` and `mats train`; whole, or not there at all. Raises StorageError.

    minutes: records of long sounds, of the source ``soundworld-minutes``; a third as many as `records` by default.
    """
    clips = (text_record(index, turn) for turn in range(rounds) for index in range(records))
    rows = itertools.chain(clips, map(minute_record, range(records // 3 if minutes is None else minutes)))
    storage.write_bytes(str(path), "".join(json.dumps(row) + "\n" for row in rows).encode())
