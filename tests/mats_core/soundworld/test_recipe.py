"""Kinds and recipes: the ranges they vary over, and seeds that never meet."""

from __future__ import annotations

import pytest

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import (
    WORDS,
)
from mats_core.soundworld.recipe import SPLITS, Event, Recipe, clip_recipe, sample_recipe


def one_event(kind: str, pitch: float = 0.5, rate: float = 0.5, level_db: float = 0.0) -> Recipe:
    event = Event(kind, 0.0, 4.0, level_db, pitch, rate)
    return Recipe(3, 4.0, "single", (event,), 0.0, -40.0, 0.5, -1.0)


def test_every_kind_varies_by_an_octave_in_pitch_or_a_factor_of_two_in_rate() -> None:
    assert len(KINDS) >= 20
    assert set(KINDS) == set(WORDS)
    for kind in KINDS.values():
        assert kind.pitch[1] / kind.pitch[0] >= 2 or kind.rate[1] / kind.rate[0] >= 2, kind.name
        assert not kind.says_pitch or kind.pitch[1] / kind.pitch[0] >= 2, kind.name
        assert not kind.says_rate or kind.rate[1] / kind.rate[0] >= 2, kind.name


def test_pitch_and_rate_of_an_event_are_geometric_in_their_range() -> None:
    event = one_event("tone", pitch=0.5).events[0]
    assert event.hertz == pytest.approx((350 * 2600) ** 0.5)
    assert one_event("tone", pitch=0.0).events[0].pitch_word == "low"
    assert one_event("tone", pitch=1.0).events[0].pitch_word == "high"
    assert event.pitch_word is None


def test_recipes_keep_to_their_bounds() -> None:
    for seed in range(300):
        recipe = sample_recipe([9, seed])
        levels = [e.level_db for e in recipe.events]
        assert 1 <= len(recipe.events) <= 3
        assert len(set(recipe.labels())) == len(recipe.labels())
        assert max(levels) == 0
        assert min(levels) >= -12
        assert -40 <= recipe.noise_db <= -10
        assert 0 <= recipe.reverb_s <= 0.8
        starts = [e.start_s for e in recipe.events if e.kind in recipe.ordered()]
        assert starts == sorted(starts)


def test_splits_share_no_recipe() -> None:
    seeds = {split: {clip_recipe(split, i).seed for i in range(200)} for split in SPLITS}
    names = list(seeds)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not seeds[a] & seeds[b], (a, b)
