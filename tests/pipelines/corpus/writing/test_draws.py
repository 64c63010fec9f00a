"""Choices follow from a name alone, and are even."""

from __future__ import annotations

from collections import Counter

from pipelines.corpus.writing.draws import Draws


def test_the_same_name_draws_the_same_and_another_something_else() -> None:
    first, again, other = ([Draws(name).below(1000) for _ in range(1)] + [] for name in ("a", "a", "b"))
    assert first == again != other
    one, two = Draws("x"), Draws("x")
    assert [one.below(7) for _ in range(500)] == [two.below(7) for _ in range(500)]


def test_draws_are_even_however_many_are_made() -> None:
    draws = Draws("even")
    counted = Counter(draws.below(6) for _ in range(12_000))
    assert set(counted) == set(range(6))
    assert all(1800 < number < 2200 for number in counted.values())


def test_an_order_is_drawn_of_all_items() -> None:
    orders = Counter(tuple(Draws(str(at)).shuffled("abc")) for at in range(6000))
    assert len(orders) == 6 and all(850 < number < 1150 for number in orders.values())
