"""Measures of the embedded world against values worked by hand."""

from __future__ import annotations

import pytest

from mats_core.soundworld.made.measure import accuracy, caption_numbers
from mats_core.soundworld.recipe import Event, Recipe


def test_accuracy_ignores_case_and_the_full_stop() -> None:
    assert accuracy(["Yes.", " no", "two"], ["yes", "no", "three"]) == pytest.approx(2 / 3)


def sequence(*kinds: str) -> Recipe:
    events = tuple(Event(kind, float(i), 1.0, 0.0, 0.5, 0.5) for i, kind in enumerate(kinds))
    return Recipe(3, 4.0, "sequence", events, 0.0, -40.0, 0.5, -1.0)


def test_numbers_of_captions_by_hand() -> None:
    recipes = [sequence("dog", "rain"), sequence("bell", "cat")]
    numbers = caption_numbers(["A dog barks, then rain falls.", "A bell after a dog."], recipes)
    assert numbers["precision"] == numbers["recall"] == numbers["label_f1"] == pytest.approx(3 / 4)
    low, high = numbers["label_f1_interval"]
    assert (low, high) == pytest.approx((0.5, 1.0))  # both items drawn twice over
    assert (numbers["order"], numbers["order_given_kinds"], numbers["ordered_clips"]) == (0.5, 1.0, 2)
