"""Errors a person can act on: setting, problem, remedy."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import BaseModel, Field

from mats_core.errors import SettingsError, checked, checked_field, choice, counted, first_line


class Box(BaseModel, extra="forbid"):
    size: int = Field(1, ge=1, le=9)
    name: str


def test_an_error_is_a_sentence_and_survives_being_sent() -> None:
    error = SettingsError("output", "another run is writing into it", "wait until it has ended")
    assert str(error) == "output: another run is writing into it; wait until it has ended"
    again = pickle.loads(pickle.dumps(error))
    assert (again.setting, again.problem, again.remedy, str(again)) == (*error.__reduce__()[1], str(error))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "a", "size": 0}, "box.size: 0 is too small; give a number of at least 1"),
        ({"name": "a", "size": "x"}, 'box.size: "x" is no whole number; give a whole number'),
        ({}, "box.name: nothing is given; give a value"),
        ({"name": "a", "colour": 1}, "box.colour: there is no such setting; choose one of size, name"),
    ],
)
def test_the_first_wrong_field_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(Box, values, "box")
    assert str(caught.value).startswith(says)


def test_one_field_by_another_name() -> None:
    assert checked_field(Box, "size", "3", "width") == 3
    with pytest.raises(SettingsError, match="width: 10 is too large; give a number of at most 9"):
        checked_field(Box, "size", 10, "width")


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("\n  one \ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 300), most=5) == "xxxxx"


@pytest.mark.parametrize(
    ("wrong", "names", "said"),
    [
        ("batchsize", ["seed", "batch_size", "steps"], "did you mean batch_size? The others are seed, steps"),
        ("lerning_rate", ["learning_rate"], "did you mean learning_rate?"),
        ("colour", ["seed", "columns"], "choose one of seed, columns"),
        ("colour", [], "leave it out"),
    ],
)
def test_of_names_the_nearest_comes_first(wrong: str, names: list[str], said: str) -> None:
    assert choice(wrong, names) == said


def test_how_many_of_what() -> None:
    assert [counted(n, "stratum", "strata") for n in (0, 1, 2)] == ["0 strata", "1 stratum", "2 strata"]
    assert [counted(n, "row") for n in (1, 12_000)] == ["1 row", "12,000 rows"]
