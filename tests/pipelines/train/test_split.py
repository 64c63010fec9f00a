"""Holding out: whole captions, never a class, and never more than was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.train.split import SetRows, most_records, split


def rows(table: str, counts: dict[int, int], size: int, wanted: int, held_from: int | None = None) -> SetRows:
    """A set whose caption `row` of `size` stands behind counts[row] records; captions are held out from the last on."""
    numbers = np.concatenate([np.full(count, row) for row, count in counts.items()])
    return SetRows(numbers, table, np.arange(size)[::-1].copy(), wanted, held_from)


def test_a_label_is_never_held_out() -> None:
    """7000 records of four captions: 256 of the records, and every class is still trained on."""
    labels = rows("a", {0: 1750, 1: 1750, 2: 1750, 3: 1750}, 4, wanted=256)
    (found,) = split([labels])
    assert (found.held_by, len(found.validation), found.met, found.given_up) == ("record", 256, 256, 0)
    assert len(found.train) == 7000 - 256
    assert not set(found.train) & set(found.validation)
    assert set(labels.rows[found.train]) == {0, 1, 2, 3}


def test_a_set_of_one_caption_can_be_trained_on() -> None:
    (found,) = split([rows("a", {0: 10}, 1, wanted=2)])
    assert (len(found.train), len(found.validation), found.held_by) == (8, 2, "record")


def test_captions_are_held_out_whole_up_to_what_is_wanted() -> None:
    """A thousand records: one caption behind 200 of them, the others behind 1, 2 or 3; the label stays where it is."""
    counts = {0: 200} | {row: 1 + row % 3 for row in range(1, 401)}
    some = rows("a", counts, 401, wanted=100)
    (found,) = split([some])
    assert (found.held_by, len(found.validation), found.met) == ("caption", 100, 0)
    assert not set(some.rows[found.train]) & set(some.rows[found.validation])
    assert 0 in some.rows[found.train]
    assert some.rows[found.validation].max() == 400  # in the order of their rank
    assert len(found.train) == len(some.rows) - 100


def test_one_sets_captions_are_not_another_sets_labels() -> None:
    captions = rows("a", dict.fromkeys(range(1000), 1), 1000, wanted=100)
    classes = rows("a", {999: 40, 998: 40}, 1000, wanted=0)  # the first two that `captions` would hold out
    likes = rows("a", dict.fromkeys(range(900, 1000), 2), 1000, wanted=0)
    elsewhere = rows("b", dict.fromkeys(range(900, 1000), 2), 1000, wanted=0)
    first, second, third, fourth = split([captions, classes, likes, elsewhere])
    assert set(captions.rows[first.validation]) == set(range(898, 998))
    assert (first.held_by, first.met) == ("caption", 0)
    assert (len(second.train), second.given_up, second.held_by) == (80, 0, "nothing")
    assert (len(third.train), third.given_up) == (4, 196)  # two captions are left, the classes
    assert (len(fourth.train), fourth.given_up) == (200, 0)


def test_a_corpus_of_its_own_takes_no_class_either() -> None:
    mine = rows("a", {0: 30, 1: 30, 2: 1, 3: 1}, 5, wanted=9, held_from=62)
    mine.rows = np.concatenate([mine.rows, [0, 1, 2, 4]])
    (found,) = split([mine])
    assert found.validation.tolist() == [62, 63, 64, 65]
    assert (len(found.train), found.given_up, found.met) == (61, 1, 2)  # caption 2 is held out, 0 and 1 are labels


@pytest.mark.parametrize(("size", "most"), [(1, 1), (60, 3), (200, 10), (5000, 10), (180_000, 180)])
def test_what_a_label_is(size: int, most: int) -> None:
    assert most_records(size) == most
