"""Recipes: what is in a clip of the embedded world, before a sample of it is synthesised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mats_core.soundworld.kinds import KINDS

# Seeds are split by purpose, so that no clip (and no recipe) is shared between them.
SPLITS = {
    "pretrain": 101, "text": 102, "upper_bound": 103, "validation": 104, "test": 105, "memory": 106, "demo": 107,
    "minutes": 108, "tokenizer": 999,
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One sound: kind, start and length (seconds), level (dB), pitch and rate as 0..1 of the kind's range."""

    kind: str
    start_s: float
    duration_s: float
    level_db: float
    pitch: float
    rate: float

    @property
    def hertz(self) -> float:
        """Its pitch, geometric in the kind's range."""
        low, high = KINDS[self.kind].pitch
        return low * (high / low) ** self.pitch

    @property
    def per_second(self) -> float:
        """Its events (or cycles) a second, geometric in the kind's range."""
        low, high = KINDS[self.kind].rate
        return low * (high / low) ** self.rate

    @property
    def pitch_word(self) -> str | None:
        """ "low" or "high" where the pitch is in the outer thirds of the kind's range, else None."""
        return _third(self.pitch, "low", "high") if KINDS[self.kind].says_pitch else None

    @property
    def rate_word(self) -> str | None:
        """ "slow" or "fast" where the rate is in the outer thirds of the kind's range, else None."""
        return _third(self.rate, "slow", "fast") if KINDS[self.kind].says_rate else None


def _third(x: float, low: str, high: str) -> str | None:
    return low if x < 0.36 else high if x > 0.64 else None


@dataclass(frozen=True)
class Recipe:
    """A clip: events in order of start, how they are laid out, the room and the background noise.

    ``layout``: ``single``; ``together`` (all at once); ``sequence`` (one after another, in the order of
    ``events``); ``background`` (the last event sounds throughout, the others one after another over it).
    """

    seed: int
    seconds: float
    layout: str
    events: tuple[Event, ...]
    reverb_s: float
    noise_db: float
    noise_color: float
    gain_db: float

    def labels(self) -> list[str]:
        """The kinds of sound present, in the order of the events."""
        return [e.kind for e in self.events]

    def ordered(self) -> list[str]:
        """The kinds whose order in time is part of what one hears; empty when there is no such order."""
        if self.layout == "sequence":
            return self.labels()
        return self.labels()[:-1] if self.layout == "background" else []


def sample_recipe(seed: int | list[int], seconds: float | None = None, kinds: list[str] | None = None) -> Recipe:
    """Draw a recipe; the same seed always gives the same recipe.

    seed: anything ``numpy.random.default_rng`` takes; disjoint seeds give unrelated clips.
    seconds: length of the clip; by default 5 s, one time in four 2.6 to 5 s.
    kinds: draw from these kinds only.
    """
    rng = np.random.default_rng(seed)
    own_seed = int(rng.integers(2**31))
    if seconds is None:
        seconds = float(rng.uniform(2.6, 5.0)) if rng.random() < 0.25 else 5.0
    most = 1 if seconds < 2.0 else 2 if seconds < 3.5 else 3
    count = min(most, len(kinds or KINDS), int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3])))
    chosen = [str(k) for k in rng.choice(kinds or list(KINDS), size=count, replace=False)]
    if count == 1:
        layout = "single"
    elif count == 2:
        layout = str(rng.choice(["together", "sequence"]))
    else:
        layout = str(rng.choice(["together", "sequence", "background"], p=[0.34, 0.33, 0.33]))
    spans = _spans(rng, layout, count, seconds)
    quiet = rng.uniform(-12.0, 0.0, size=count)
    quiet -= quiet.max()
    events = tuple(
        Event(kind, round(start, 3), round(length, 3), round(float(level), 2), float(rng.random()), float(rng.random()))
        for kind, (start, length), level in zip(chosen, spans, quiet, strict=True)
    )
    return Recipe(
        own_seed, round(seconds, 3), layout, events,
        reverb_s=float(rng.uniform(0.1, 0.8)) if rng.random() < 0.7 else 0.0,
        noise_db=float(rng.uniform(-40.0, -10.0)),
        noise_color=float(rng.uniform(0.0, 1.0)),
        gain_db=float(rng.uniform(-24.0, -1.0)),
    )  # fmt: skip


def clip_recipe(split: str, index: int, kinds: list[str] | None = None) -> Recipe:
    """Recipe ``index`` of a split, of all kinds or of these; splits never share one."""
    return sample_recipe([SPLITS[split], index], kinds=kinds)


def _spans(rng: np.random.Generator, layout: str, count: int, seconds: float) -> list[tuple[float, float]]:
    """(start, duration) in seconds of every event; sequences overlap by up to 30 % of a part."""
    if layout == "single":
        length = seconds * float(rng.uniform(0.6, 1.0))
        return [(float(rng.uniform(0, seconds - length)), length)]
    if layout == "together":
        return [(s, seconds - s - float(rng.uniform(0, 0.15)) * seconds) for s in rng.uniform(0, 0.15 * seconds, count)]
    in_order = count if layout == "sequence" else count - 1
    cuts = np.cumsum(rng.dirichlet([12.0] * in_order)) * seconds
    starts = [0.0, *cuts[:-1]]
    spans = []
    for i, (start, end) in enumerate(zip(starts, cuts, strict=True)):
        overlap = 0.0 if i + 1 == in_order else float(rng.uniform(-0.1, 0.3)) * (end - start)
        spans.append((float(start), float(min(seconds, end + overlap) - start)))
    if layout == "background":
        spans.append((0.0, seconds))
    return spans
