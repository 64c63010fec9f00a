"""The history and its gate: what closes it, what does not, and that no bad night becomes the new normal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.history import History, compare_runs
from pipelines.history_picture import series, terminal_plot, trend_svg

ITEMS = 400


def run_rows(run_id: str, right: float, *, day: int = 1, items: int = ITEMS, **changes: Any) -> list[dict[str, Any]]:
    """One benchmark's accuracy: the first `right` share of the items is right, each with a little of its own."""
    values = [float(i < right * items) for i in range(items)]
    mean = float(np.mean(values))
    row = {
        "run_id": run_id,
        "started": f"2026-11-{day:02d}T03:00:00Z",
        "out": f"runs/{run_id}",
        "model": "m",
        "model_fingerprint": "f",
        "settings": "{}",
        "cell": "",
        "benchmark": "bells",
        "kind": "label",
        "labels": "l",
        "metric": "accuracy",
        "value": mean,
        "low": mean - 0.02,
        "high": mean + 0.02,
        "n": items,
        "statistic": "mean",
        "higher_is_better": True,
        "items": [f"clip-{i}" for i in range(items)],
        "rows": [[v] for v in values],
    }
    return [{**row, **changes}]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def night(history: History, run_id: str, right: float, day: int) -> bool:
    """One night as the cron line has it: compare, add, accept where the gate is open. Returns whether it was."""
    rows = run_rows(run_id, right, day=day)
    verdict = history.gate(rows, "accepted", 0.01)
    history.add(rows)
    if verdict.open:
        history.mark("accept", run_id, by="gate")
    return verdict.open


def test_the_first_run_has_nothing_to_be_compared_with(history: History) -> None:
    verdict = history.gate(run_rows("a", 0.8), "accepted", 0.01)
    assert (verdict.open, verdict.against, verdict.changes) == (True, {}, [])


def test_a_fall_closes_the_gate_and_is_named(history: History) -> None:
    assert night(history, "a", 0.80, 1)
    verdict = history.gate(run_rows("b", 0.75), "accepted", 0.01)
    (change,) = verdict.falls
    assert (change.benchmark, change.metric, change.items) == ("bells", "accuracy", ITEMS)
    assert change.difference == pytest.approx(-0.05)
    assert change.high < 0
    assert "bells accuracy: 0.7500, was 0.8000 in accepted run a (-0.0500" in str(change)


def test_a_fall_within_the_tolerance_or_within_the_noise_does_not(history: History) -> None:
    assert night(history, "a", 0.80, 1)
    assert history.gate(run_rows("b", 0.7925), "accepted", 0.01).open  # 3 items of 400: less than the tolerance
    few = run_rows("c", 0.8, items=ITEMS)
    few[0]["rows"] = few[0]["rows"][:10] + [None] * (ITEMS - 10)
    few[0]["rows"][0] = [0.0]  # one of ten: −0.1, but the interval of so few reaches zero
    (change,) = history.gate(few, "accepted", 0.01).changes
    assert (change.items, change.difference, change.fell) == (10, pytest.approx(-0.1), False)


def test_a_rise_does_not_close_it_but_of_a_rate_of_failures_it_does(history: History) -> None:
    history.add(run_rows("a", 0.5, higher_is_better=False))
    history.mark("accept", "a")
    assert not history.gate(run_rows("b", 0.6, higher_is_better=False), "accepted", 0.01).open
    assert history.gate(run_rows("b", 0.4, higher_is_better=False), "accepted", 0.01).open


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
    verdict = history.gate(run_rows("night-2", 0.785), "accepted", 0.01)
    assert verdict.against == {"accepted": "night-1", "pinned": "night-0"}
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
    assert history.to_compare("accepted") == {"accepted": "a"}


def test_a_run_scored_again_is_not_compared_with_itself(history: History) -> None:
    assert night(history, "a", 0.8, 1)
    assert history.gate(run_rows("a", 0.5), "accepted", 0.01).against == {}


def test_a_named_run_is_compared_with_beside_the_pin(history: History) -> None:
    for day, run_id in enumerate(("a", "b"), start=1):
        night(history, run_id, 0.8, day)
    assert history.to_compare("b") == {"run": "b", "pinned": "a"}
    with pytest.raises(SettingsError, match=r'run: got "x"; allowed: a run of this history: a, b'):
        history.to_compare("x")


def test_runs_are_compared_on_the_items_both_have(history: History) -> None:
    old, new = run_rows("a", 1.0, items=4), run_rows("b", 1.0, items=4)
    new[0].update(items=["clip-3", "clip-0", "new"], rows=[[0.0], [1.0], [0.0]])
    (change,), skipped = compare_runs(old, new, "accepted run a", 0.01)
    assert (change.items, change.difference, skipped) == (2, pytest.approx(-0.5), [])


def test_what_cannot_be_compared_is_named(history: History) -> None:
    old = run_rows("a", 0.8) + run_rows("a", 0.8, metric="macro_f1") + run_rows("a", 0.8, benchmark="gongs")
    new = run_rows("b", 0.8, labels="other")
    changes, skipped = compare_runs(old, new, "accepted run a", 0.01)
    assert changes == []
    assert skipped == [
        "bells accuracy against the accepted run a: other labels or another way of counting",
        "bells macro_f1 against the accepted run a: could not be computed this time",
        "gongs accuracy against the accepted run a: not evaluated this time",
    ]


def test_a_run_added_again_is_one_run(history: History) -> None:
    history.add(run_rows("a", 0.8))
    history.add(run_rows("a", 0.9))
    assert history.ids() == ["a"]
    assert [row["value"] for row in history.runs()] == [0.9]
    assert history.run("a")[0]["rows"][0] == [1.0]


def test_a_broken_file_and_a_wrong_event_are_clear(history: History) -> None:
    history.add(run_rows("a", 0.8))
    with pytest.raises(SettingsError, match="event"):
        history.mark("praise", "a")
    with pytest.raises(SettingsError, match="which has none yet"):
        History(history.url + "-other").mark("accept", "a")
    (Path(history.url) / "runs" / "20261102T000000Z-b.parquet").write_bytes(b"no parquet")
    with pytest.raises(SettingsError, match="a readable Parquet file"):
        history.runs()


def test_a_metric_over_time_as_text_and_picture(history: History) -> None:
    for day, (run_id, right) in enumerate((("a", 0.8), ("b", 0.9), ("c", 0.5)), start=1):
        history.add(run_rows(run_id, right, day=day))
    points = series(history.runs(), "bells/accuracy", ["a", "b", "c"])
    assert [point.value for point in points] == pytest.approx([0.8, 0.9, 0.5])
    marks = {"a": "pinned", "b": "accepted", "c": ""}
    lines = terminal_plot(points, marks).splitlines()
    height = {mark: next(i for i, line in enumerate(lines) if mark in line) for mark in "◆●○"}
    assert height["●"] < height["◆"] < height["○"]
    picture = trend_svg("bells/accuracy <night>", points, marks)
    assert picture.count("<title>") == 3
    assert "&lt;night&gt;" in picture
    from xml.etree import ElementTree

    ElementTree.fromstring(picture)
