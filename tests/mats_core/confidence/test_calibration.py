"""Signs of an answer → the chance that it is right, by what a model directory says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.confidence.calibration import ALL, FILE, Calibration, Curve, Signs, read_calibration
from mats_core.errors import SettingsError


def curve(**changes: Any) -> Curve:
    """One number and one word."""
    given: dict[str, Any] = {"signs": ["clap_score", "answer:bell"], "means": [0.5, 0.0], "scales": [0.1, 1.0]}
    return Curve(**given | {"weights": [1.0, -2.0], "bias": 0.5, "answers": 200, "right": 0.6} | changes)


def sigmoid(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))


@pytest.mark.parametrize(
    ("signs", "odds"),
    [
        ({"clap_score": 0.7}, 2.5),
        ({"clap_score": 0.7, "answer:bell": 1.0, "answer:rain": 1.0}, 0.5),
        ({"clap_score": None}, 0.5),
        ({"clap_score": math.nan, "answer:bell": 1.0}, -1.5),
        ({"clap_score": 1e9}, 1e10),
    ],
)
def test_a_chance_is_the_sum_of_what_is_known(signs: dict[str, float | None], odds: float) -> None:
    assert curve().log_odds(Signs(signs)) == pytest.approx(odds)
    assert curve().chance(Signs(signs)) == pytest.approx(sigmoid(min(odds, 60.0)))


def test_what_all_answers_and_sounds_have_in_common_is_taken_off() -> None:
    """Two answers and two sounds that lie near one another: less their means they point the same way, or apart."""
    centres = {"answer": [1.0, 0.0], "sound": [0.0, 1.0]}
    own = curve(signs=["clap_centred"], means=[0.0], scales=[1.0], weights=[3.0], bias=0.0, centres=centres)
    answer, sound = np.array([1.0, 0.1]), np.array([0.0, 1.3])
    assert own.log_odds(Signs({}, {"answer": answer, "sound": sound})) == pytest.approx(3.0)
    assert own.log_odds(Signs({}, {"answer": answer, "sound": np.array([0.0, 0.9])})) == pytest.approx(-3.0)
    for unknown in ({}, {"sound": sound}, {"answer": answer, "sound": np.zeros(3)}):
        assert own.log_odds(Signs({}, unknown)) == 0.0


def test_a_number_may_count_for_a_word_by_itself() -> None:
    own = curve(signs=["question:is*share"], means=[-1.0], scales=[0.5], weights=[1.0], bias=0.0)
    assert own.log_odds(Signs({"question:is": 1.0, "share": -0.5})) == 1.0
    assert own.log_odds(Signs({"share": -0.5})) == 2.0  # without the word it is 0, whatever the number
    assert own.log_odds(Signs({"question:is": 1.0, "share": None})) == 0.0


def test_steps_take_the_place_of_the_curve() -> None:
    stepped = curve(steps=[(0.0, 0.2), (1.0, 0.6), (2.0, 0.6)])
    assert stepped.chance(Signs({"clap_score": 0.5})) == pytest.approx(0.4)
    assert [stepped.chance(Signs({"clap_score": value})) for value in (0.0, 9.0)] == [0.2, 0.6]


def test_a_task_that_was_not_judged_has_the_curve_of_all() -> None:
    both = Calibration(model="m", tasks={"QA": curve(), ALL: curve(bias=-0.5)})
    assert both.confidence("QA", Signs({})) == sigmoid(0.5)
    assert both.confidence("caption", Signs({})) == sigmoid(-0.5)
    assert Calibration(model="m", tasks={"QA": curve()}).confidence("caption", Signs({})) is None


def test_what_is_saved_is_read_for_its_own_model_alone(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "m") == (None, "there is no calibration")
    made = Calibration(model="m", data="200 clips", tasks={ALL: curve(steps=[(0.0, 0.1), (1.0, 0.9)])})
    made.save(tmp_path)
    read, why = read_calibration(tmp_path, "m")
    assert read == made and why == "" and read.fingerprint == made.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    other, why = read_calibration(tmp_path, "n" * 64)
    assert other is None and "another model (m, this is nnnnnnnnnnnn)" in why


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": [1.0]}, "not of one size"),
        ({"centres": {"answer": [1.0], "sound": []}}, "centres are not of one size"),
        ({"scales": [0.0, 1.0]}, "a scale is not above 0"),
        ({"steps": [[1.0, 0.5], [0.0, 0.9]]}, "do not rise"),
        ({"bias": "much"}, "bias"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    tasks = {ALL: {**json.loads(curve().model_dump_json()), **change}}
    (tmp_path / FILE).write_text(json.dumps({"model": "m", "tasks": tasks}))
    with pytest.raises(SettingsError, match=named):
        read_calibration(tmp_path, "m")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(SettingsError, match="not JSON"):
        read_calibration(tmp_path, "m")
