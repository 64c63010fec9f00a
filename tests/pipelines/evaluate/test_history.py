"""The history: what is accepted and pinned, what items contributed, files that do not belong there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.evaluate.history import History, series

ITEMS = 400


def run_rows(run_id: str, right: float, *, day: int = 1, items: int = ITEMS, **changes: Any) -> list[dict[str, Any]]:
    """One data set's accuracy: the first `right` share of the items is right, each with a little of its own."""
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


def test_what_items_contributed_stays_numbers_of_arrow(history: History) -> None:
    """As Python floats a benchmark of 200 labels would take many times its size: no list of them is ever made."""
    table = np.random.default_rng(1).random((300, 400))
    wide = {"metric": "map", "statistic": "mean_average_precision", "items": [str(i) for i in range(301)]}
    history.add([{**run_rows("a", 0.8)[0], **wide, "rows": [None, *table]}])
    (values,) = history.item_values("a", {("", "bells", "map")}).values()
    assert values.counted.tolist() == list(range(1, 301))
    assert np.array_equal(values.table, table)
    assert not values.table.flags.owndata  # a view of what Parquet gave


def test_a_run_added_again_is_one_run(history: History) -> None:
    history.add(run_rows("a", 0.8))
    history.add(run_rows("a", 0.9))
    assert history.ids() == ["a"]
    assert [row["value"] for row in history.runs()] == [0.9]
    (values,) = history.item_values("a", history.keys("a")).values()
    assert values.table.sum() == pytest.approx(0.9 * ITEMS)


def test_a_broken_file_and_a_wrong_event_are_clear(history: History) -> None:
    history.add(run_rows("a", 0.8))
    with pytest.raises(SettingsError, match="event"):
        history.mark("praise", "a")
    with pytest.raises(SettingsError, match="which has none yet"):
        History(history.url + "-other").mark("accept", "a")
    (Path(history.url) / "runs" / "20261102T000000Z-b.parquet").write_bytes(b"no parquet")
    with pytest.raises(SettingsError, match="not a readable Parquet file"):
        history.runs()


@pytest.mark.parametrize("text", ['{"hello": 1}', "[]", "no JSON"])
def test_a_stray_file_among_the_events_is_named(history: History, text: str) -> None:
    history.add(run_rows("a", 0.8))
    history.mark("accept", "a")
    (Path(history.url) / "events" / "stray.json").write_text(text)
    with pytest.raises(SettingsError, match=r"events/stray\.json is not an event .*move this file away"):
        history.accepted()


def test_the_points_of_a_metric_are_in_the_order_asked_for(history: History) -> None:
    for day, (run_id, right) in enumerate((("a", 0.8), ("b", 0.9)), start=1):
        history.add(run_rows(run_id, right, day=day))
    points = series(history.runs(), "bells/accuracy", ["b", "gone", "a"])
    assert [(point.run_id, point.value, point.n) for point in points] == [("b", 0.9, ITEMS), ("a", 0.8, ITEMS)]
