"""Whether an encoder's sounds and sentences belong together, tried on sounds of the embedded world."""

from __future__ import annotations

from typing import Any

import numpy as np

from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import WORDS
from mats_core.soundworld.recipe import Event, Recipe
from mats_core.soundworld.synth import render

KINDS = (
    "rain",
    "thunder",
    "bird",
    "dog",
    "cricket",
    "engine",
    "siren",
    "telephone",
    "bell",
    "knock",
    "melody",
    "voice",
)
GUESSED = 0.5
LEAST = 0.7
"""Below this a pair is told from others hardly better than by guessing."""
SECONDS = 5.0


def heard_right(encoder: Any) -> float:
    """How often a sound's own sentence is nearer to it than another sound's: 1 always, 0.5 by guessing.

    Of KINDS, one sound and one sentence each, all pairs of sentences; a few seconds for a large encoder on a CPU. They
    are synthesised: a good encoder of recorded sounds may know some of them badly, and none is at GUESSED.
    """
    import soxr
    import torch

    recipes = [
        Recipe(number, SECONDS, "single", (Event(kind, 0.1, SECONDS - 0.2, 0.0, 0.5, 0.5),), 0.2, -60.0, 0.5, -6.0)
        for number, kind in enumerate(KINDS)
    ]
    sounds = [soxr.resample(render(each), SAMPLE_RATE, encoder.sample_rate).astype(np.float32) for each in recipes]
    windows = torch.stack([torch.from_numpy(np.asarray(encoder.pad(sound))) for sound in sounds])
    heard = encoder.embed_audio(windows).float().cpu().numpy()  # [K, D]
    texts = encoder.embed_text([f"The sound of {WORDS[kind].nouns[0]}." for kind in KINDS]).float().cpu().numpy()
    # note: both centred, since sounds lie apart from texts, and some texts are near to everything
    scores = (heard - heard.mean(axis=0)) @ (texts - texts.mean(axis=0)).T  # [K, K]: sound by sentence
    own = np.diag(scores)[:, None]
    others = ~np.eye(len(KINDS), dtype=bool)
    return float(((own > scores) + 0.5 * (own == scores))[others].mean())
