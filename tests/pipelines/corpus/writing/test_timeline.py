"""Times of events → what comes after what."""

from __future__ import annotations

from pipelines.corpus.clips import Event
from pipelines.corpus.writing.timeline import Phase, Timeline, timeline


def events(*rows: tuple[str, float, float]) -> list[Event]:
    return [Event(*row) for row in rows]


def test_sounds_that_do_not_touch_are_phases_and_those_that_overlap_are_one() -> None:
    found = timeline(events(("dog", 0, 2), ("bell", 1, 3), ("rain", 4, 6)))
    assert found.phases == (Phase(("dog", "bell"), True), Phase(("rain",), True))
    assert found.first == "dog" and found.times == {"dog": 1, "bell": 1, "rain": 1}


def test_a_chain_of_overlaps_is_one_phase_that_is_not_heard_at_one_time() -> None:
    found = timeline(events(("dog", 0, 2), ("bell", 1.5, 4), ("rain", 3, 6)))
    assert found.phases == (Phase(("dog", "bell", "rain"), False),)


def test_a_sound_under_all_others_is_throughout_and_in_no_phase() -> None:
    found = timeline(events(("rain", 0, 10), ("dog", 1, 2), ("bell", 5, 6), ("dog", 8, 9)))
    assert found.throughout == ("rain",)
    assert [phase.labels for phase in found.phases] == [("dog",), ("bell",), ("dog",)]
    assert found.times["dog"] == 2


def test_sounds_that_are_all_there_all_the_time_are_together() -> None:
    found = timeline(events(("rain", 0, 10), ("wind", 0.05, 10)))
    assert found == Timeline((Phase(("rain", "wind"), True),), (), {"rain": 1, "wind": 1}, "")


def test_a_short_pause_does_not_make_two_sounds_of_one() -> None:
    assert timeline(events(("dog", 0, 1), ("dog", 1.2, 2), ("dog", 3, 4))).times == {"dog": 2}


def test_the_order_of_the_rows_says_nothing() -> None:
    rows = events(("rain", 4, 6), ("bell", 1, 3), ("dog", 0, 2))
    assert timeline(rows) == timeline(rows[::-1])


def test_moments_at_one_time_are_not_put_in_an_order() -> None:
    found = timeline(events(("dog", 1, 1), ("bell", 1, 1), ("rain", 2, 2)))
    assert [phase.labels for phase in found.phases] == [("bell", "dog"), ("rain",)]
    assert not found.phases[0].together and found.first == ""


def test_no_events_tell_nothing() -> None:
    assert timeline([]) == Timeline((), (), {}, "")
