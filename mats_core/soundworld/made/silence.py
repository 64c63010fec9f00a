"""What silence does to answers: clips of the embedded world within a minute of it, and minutes of it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from mats_core.audio.levels import SILENCE_DBFS
from mats_core.batches import raised
from mats_core.model.asking import SILENCE, Answer, Request, ask_clips
from mats_core.model.hearing.clips import embed_clips
from mats_core.model.model import MatsModel
from mats_core.scoring import interval
from mats_core.scoring.labels import label_f1
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import parse_kinds
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render

MINUTE_S = 60.0
NOISE_DBFS = (-60.0, -70.0, -80.0)
"""RMS levels of soft noise; None beside them is digital silence."""


def silence_numbers(model: MatsModel, clips: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Label F1 of captions of test clips alone, and of a minute of silence or soft noise with the clip in it, where
    silent windows weigh nothing (the default) and where they weigh as the others do; and what is said of minutes in
    which there is nothing else.

    The clip begins at a random moment. Each figure has its 95 % interval.
    """
    found: dict[str, Any] = {"clips": clips, "silence_dbfs": SILENCE_DBFS}
    recipes = [clip_recipe("test", index) for index in range(clips)]
    true = [set(recipe.labels()) for recipe in recipes]

    def measured(answers: list[Answer]) -> dict[str, Any]:
        said = [set(parse_kinds(each.text)) for each in answers]
        hits = [(len(s & t), len(s), len(t)) for s, t in zip(said, true, strict=True)]
        return {"label_f1": label_f1(said, true).micro, "interval": list(interval("micro_f1", hits, draws=200))}

    log("clips alone")
    found["alone"] = measured(_captions(model, (_samples(render(recipe)) for recipe in recipes))[0])
    for level in (None, *NOISE_DBFS):
        name = "digital silence" if level is None else f"noise at {level:g} dBFS"
        log(f"clips in a minute of {name}")
        left_out, weighed = _captions(model, (_minute(render(r), level, i) for i, r in enumerate(recipes)))
        nothing = [_minute(np.zeros(0, np.float32), level, index) for index in range(10)]
        answers, asked = _captions(model, iter(nothing))
        found[name] = {
            "left out": measured(left_out),
            "weighed": measured(weighed),
            "alone_is_silence": sum(each.text == SILENCE["caption"] for each in answers) / len(answers),
            "model_says": Counter(each.text for each in asked).most_common(1)[0][0],
        }
    return found


def silence_table(found: dict[str, Any]) -> str:
    """The numbers as a table for people, in Markdown."""
    lines = [
        "| a minute of | label F1, silent windows left out | weighed like others | alone: answered as silence | "
        "the model would say |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        if not isinstance(rows, dict) or "left out" not in rows:
            continue
        cells = [f"{rows[way]['label_f1']:.3f} ({rows[way]['interval'][0]:.3f}–{rows[way]['interval'][1]:.3f})"
                 for way in ("left out", "weighed")]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} | {rows['alone_is_silence']:.0%} | {rows['model_says']} |")
    alone = found["alone"]
    low, high = alone["interval"]
    return "\n".join([*lines, "", f"{found['clips']} clips alone: {alone['label_f1']:.3f} ({low:.3f}–{high:.3f})"])


def _captions(model: MatsModel, sounds: Iterator[np.ndarray]) -> tuple[list[Answer], list[Answer]]:
    """Captions of sounds, int16 [T] each, where silence is left out and where it is heard as the rest."""
    ways: tuple[list[Answer], list[Answer]] = ([], [])
    while batch := list(islice(sounds, 16)):
        clips = raised(embed_clips(model, [(0.0, sound) for sound in batch]))
        heard = [replace(clip, weights=np.minimum(clip.window_s, clip.seconds - clip.starts)) for clip in clips]
        for answers, each in zip(ways, (clips, heard), strict=True):
            answers += raised(ask_clips(model, each, [Request()] * len(each)))
    return ways


def _minute(clip: np.ndarray, level_dbfs: float | None, seed: int) -> np.ndarray:
    """A minute of noise (None: digital silence), int16 [T], in which a clip float32 [T] begins at a random moment."""
    rng = np.random.default_rng([71, seed])
    length = round(MINUTE_S * SAMPLE_RATE)
    sound = np.zeros(length) if level_dbfs is None else rng.standard_normal(length) * 10.0 ** (level_dbfs / 20.0)
    begin = int(rng.integers(0, length - len(clip)))
    sound[begin : begin + len(clip)] += clip
    return _samples(sound)


def _samples(sound: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
