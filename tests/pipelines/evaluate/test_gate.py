"""The gate: what closes it, what does not, and that no bad night becomes the new normal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mats_core.errors import SettingsError
from pipelines.evaluate.gate import check_against, gate
from pipelines.evaluate.history import History
from tests.pipelines.evaluate.test_history import ITEMS, run_rows


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def night(history: History, run_id: str, right: float, day: int) -> bool:
    """One night as the cron line has it: compare, add, accept where the gate is open. Returns whether it was."""
    rows = run_rows(run_id, right, day=day)
    verdict = gate(history, rows, "accepted", 0.01)
    history.add(rows)
    if verdict.open:
        history.mark("accept", run_id, by="gate")
    return verdict.open


def test_the_first_run_has_nothing_to_be_compared_with(history: History) -> None:
    verdict = gate(history, run_rows("a", 0.8), "accepted", 0.01)
    assert (verdict.open, verdict.against, verdict.changes, verdict.skipped) == (True, {}, [], [])
    assert gate(history, [], "accepted", 0.01).open


def test_a_fall_closes_the_gate_and_is_named(history: History) -> None:
    assert night(history, "a", 0.80, 1)
    verdict = gate(history, run_rows("b", 0.75), "accepted", 0.01)
    (change,) = verdict.falls
    assert (change.benchmark, change.metric, change.items) == ("bells", "accuracy", ITEMS)
    assert change.difference == pytest.approx(-0.05)
    assert change.high < 0
    assert "bells accuracy: 0.7500, was 0.8000 in accepted run a (-0.0500" in str(change)


def test_a_fall_within_the_tolerance_or_within_the_noise_does_not(history: History) -> None:
    assert night(history, "a", 0.80, 1)
    assert gate(history, run_rows("b", 0.7925), "accepted", 0.01).open  # 3 items of 400: less than the tolerance
    few = run_rows("c", 0.8, items=ITEMS)
    few[0]["rows"] = few[0]["rows"][:10] + [None] * (ITEMS - 10)
    few[0]["rows"][0] = [0.0]  # one of ten: −0.1, but the interval of so few reaches zero
    (change,) = gate(history, few, "accepted", 0.01).changes
    assert (change.items, change.difference, change.fell) == (10, pytest.approx(-0.1), False)


def test_a_rise_does_not_close_it_but_of_a_rate_of_failures_it_does(history: History) -> None:
    history.add(run_rows("a", 0.5, higher_is_better=False))
    history.mark("accept", "a")
    assert not gate(history, run_rows("b", 0.6, higher_is_better=False), "accepted", 0.01).open
    assert gate(history, run_rows("b", 0.4, higher_is_better=False), "accepted", 0.01).open


def test_a_bad_night_does_not_become_the_new_normal(history: History) -> None:
    """After a bad night the next is still measured by the good one before."""
    assert night(history, "good", 0.80, 1)
    assert not night(history, "bad", 0.70, 2)
    assert history.accepted() == ["good"]
    assert not night(history, "still-bad", 0.70, 3)
    assert night(history, "well-again", 0.80, 4)
    assert history.accepted() == ["good", "well-again"]


def test_a_slow_slide_does_not_become_the_new_normal(history: History) -> None:
    """Each night falls by 0.0075 < 0.01 and passes against the last accepted; together they fall, and the pin tells."""
    assert night(history, "night-0", 0.80, 1)
    assert night(history, "night-1", 0.7925, 2)
    assert not night(history, "night-2", 0.785, 3)
    verdict = gate(history, run_rows("night-2", 0.785), "accepted", 0.01)
    assert verdict.against == {"accepted": ["night-1"], "pinned": ["night-0"]}
    assert [(c.against, c.fell) for c in verdict.changes] == [
        ("accepted run night-1", False),
        ("pinned run night-0", True),
    ]


def test_the_pin_moves_by_hand_alone(history: History) -> None:
    assert history.pinned() is None
    for day, run_id in enumerate(("a", "b", "c"), start=1):
        assert night(history, run_id, 0.8, day)
    assert history.pinned() == "a"
    history.mark("pin", "b")
    assert history.pinned() == "b"
    history.mark("reject", "b")
    assert (history.pinned(), history.accepted()) == ("a", ["a", "c"])
    history.mark("reject", "c")
    assert gate(history, run_rows("d", 0.8), "accepted", 0.01).against == {"accepted": ["a"]}


def test_a_run_scored_again_is_not_compared_with_itself(history: History) -> None:
    assert night(history, "a", 0.8, 1)
    assert gate(history, run_rows("a", 0.5), "accepted", 0.01).against == {}


def test_a_named_run_is_compared_with_beside_the_pin(history: History) -> None:
    for day, run_id in enumerate(("a", "b"), start=1):
        night(history, run_id, 0.8, day)
    assert gate(history, run_rows("c", 0.8), "b", 0.01).against == {"run": ["b"], "pinned": ["a"]}
    check_against(history, "b", ["bells"])
    with pytest.raises(SettingsError, match="run: x is not a run of this history; choose one of a, b"):
        check_against(history, "x", ["bells"])
    with pytest.raises(SettingsError, match="run b has no gongs"):
        check_against(history, "b", ["bells", "gongs"])


def test_nights_may_take_turns_with_data_sets(history: History) -> None:
    for day, (name, right) in enumerate((("bells", 0.9), ("gongs", 0.9), ("bells", 0.9)), start=1):
        rows = run_rows(f"night-{day}", right, day=day, benchmark=name)
        assert gate(history, rows, "accepted", 0.01).open
        history.add(rows)
        history.mark("accept", f"night-{day}")
    verdict = gate(history, run_rows("night-4", 0.1, benchmark="gongs"), "accepted", 0.01)
    assert [(change.against, change.fell) for change in verdict.changes] == [("accepted run night-2", True)]
    assert not verdict.open
    assert verdict.skipped == ["bells: not evaluated this time"]
    both = run_rows("night-4", 0.9) + run_rows("night-4", 0.9, benchmark="gongs")
    assert gate(history, both, "accepted", 0.01).against == {
        "accepted": ["night-3", "night-2"],
        "pinned": ["night-1"],
    }


def test_a_metric_that_the_last_accepted_run_lacked_is_compared_with_an_earlier_one(history: History) -> None:
    for run_id, names in (("a", ("accuracy", "macro_f1")), ("b", ("accuracy",))):
        history.add([row for name in names for row in run_rows(run_id, 0.9, metric=name)])
        history.mark("accept", run_id)
    history.mark("pin", "b")
    verdict = gate(history, run_rows("c", 0.9) + run_rows("c", 0.1, metric="macro_f1"), "accepted", 0.01)
    assert [(change.metric, change.against) for change in verdict.falls] == [
        ("macro_f1", "accepted run a"),
    ]


def test_runs_are_compared_on_the_items_both_have(history: History) -> None:
    history.add(run_rows("a", 1.0, items=40))
    history.mark("accept", "a")
    new = run_rows("b", 1.0, items=40)
    new[0].update(items=[f"clip-{i}" for i in range(38)] + ["new"], rows=[[0.0], *[[1.0]] * 37, [0.0]])
    verdict = gate(history, new, "accepted", 0.01)
    (change,) = verdict.changes
    assert (change.items, change.difference, verdict.not_comparable) == (38, pytest.approx(-1 / 38), [])


def test_a_run_of_far_fewer_items_closes_the_gate(history: History) -> None:
    """Three items that are right say nothing of four hundred; of 95 % of them one hears."""
    assert night(history, "a", 0.8, 1)
    assert gate(history, run_rows("b", 320 / 380, items=380), "accepted", 0.01).open
    few = run_rows("b", 1.0, items=379)
    (missing,) = gate(history, few, "accepted", 0.01).not_comparable
    assert missing.why == "only 379 of its 400 items are in this run (95% must be, so give it the same --limit)"
    assert "mats history accept b" in missing.remedy
    assert gate(history, few, "accepted", 0.01, ungated=["bells/accuracy"]).open


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": "other"}, "its labels are others"),
        ({"statistic": "macro_f1"}, "it is counted in another way"),
        ({"metric": "macro_f1"}, "it could not be computed this time"),
        (
            {"items": [*(f"clip-{i}" for i in range(ITEMS)), "new"], "rows": [*[None] * ITEMS, [1.0]]},
            "no item counts in both",
        ),
    ],
)
def test_a_gate_that_can_compare_nothing_is_closed(history: History, changes: dict[str, Any], why: str) -> None:
    assert night(history, "a", 0.8, 1)
    rows = [{**row, **changes} for row in run_rows("b", 0.8)]
    verdict = gate(history, rows, "accepted", 0.01)
    assert (verdict.open, verdict.falls) == (False, [])
    assert verdict.reasons == [
        f"bells accuracy cannot be compared with accepted run a: {why}; repair it, accept this run as it is "
        "(mats history accept b), or leave it out (--ungated bells/accuracy)"
    ]
    spared = gate(history, rows, "accepted", 0.01, ungated=["bells/accuracy"])
    assert spared.open
    assert "bells/accuracy: left out by --ungated" in spared.skipped


def test_accepted_and_pinned_by_hand_the_new_way_of_counting_is_the_standard(history: History) -> None:
    assert night(history, "a", 0.8, 1)
    history.add(run_rows("b", 0.8, labels="other"))
    history.mark("accept", "b")
    again = gate(history, run_rows("c", 0.8, labels="other"), "accepted", 0.01)
    assert [each.against for each in again.not_comparable] == ["pinned run a"]
    assert "mats history pin c" in again.reasons[0]
    history.mark("pin", "b")
    assert gate(history, run_rows("c", 0.8, labels="other"), "accepted", 0.01).open


def test_cider_is_compared_only_over_the_same_items(history: History) -> None:
    """Its values depend on the references of all items; which of them were answered does not matter."""
    cider = {"kind": "caption", "metric": "cider_d", "statistic": "mean_of_set"}
    history.add(run_rows("a", 0.8, **cider))
    history.mark("accept", "a")
    same = run_rows("b", 0.8, **cider)
    same[0]["rows"] = [None, *same[0]["rows"][1:]]
    verdict = gate(history, same, "accepted", 0.01)
    assert (verdict.open, verdict.changes[0].items) == (True, ITEMS - 1)
    (missing,) = gate(history, run_rows("b", 0.8, items=ITEMS - 1, **cider), "accepted", 0.01).not_comparable
    assert missing.why == "its values depend on which items there are, and these are others (400 then, 399 now)"


def test_a_grid_is_no_standard(history: History) -> None:
    history.add(run_rows("grid", 0.8, cell="santa.mix=0.3"))
    for kind in ("accept", "pin"):
        with pytest.raises(SettingsError, match="choose a run without a grid"):
            history.mark(kind, "grid")
    with pytest.raises(SettingsError, match="choose a run without a grid"):
        check_against(history, "grid", ["bells"])
    event = Path(history.url) / "events" / f"{1:020d}-accept-grid.json"  # accepted before that was refused
    event.parent.mkdir()
    event.write_text('{"kind": "accept", "run_id": "grid"}')
    verdict = gate(history, run_rows("b", 0.1), "accepted", 0.01)
    assert not verdict.open
    assert [(each.benchmark, each.metric) for each in verdict.not_comparable] == [("bells", "")]
