"""The figures of two evaluations beside each other: an interval by their items, or why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mats_core.scoring import compute, paired_bootstrap
from pipelines.data import parquet
from pipelines.evaluate.differences import Difference, differences
from pipelines.evaluate.records import PREDICTIONS_SCHEMA
from tests.pipelines.evaluate.test_commands import mats

ITEMS = 200
OLDER = "the predictions of B do not tell what each item contributed; evaluate it with this version"
OTHER_WAY = "it is counted in another way"


def rows_of(right: list[float | None]) -> np.ndarray:
    """(hits, guessed, true) of each item: two of three labels where it is right, else one of four."""
    return np.array([(2.0, 3.0, 3.0) if value else (1.0, 4.0, 3.0) for value in right])


def values_of(share: float, items: int = ITEMS, gone: int = -1) -> list[float | None]:
    """1 for the items below `share`, 0 for the others, None for one that is left out."""
    return [None if at == gone else float(at < share * items) for at in range(items)]


def evaluation(
    place: Path, right: list[float | None], names: list[str] | None = None, older: bool = False, **counted: str
) -> str:
    """OUT of an evaluation in which every item was asked in two orders. older: its predictions do not tell what items
    contribute to F1. counted: a metric's statistic, where it is another than usual."""
    names = names or [f"clip-{at}" for at in range(len(right))]
    rows, of_items = rows_of(right), []
    for name, value, row in zip(names, right, rows, strict=True):
        item = {"benchmark": "bells", "item": name, "uri": f"/{name}.wav", "text": "A bell."}
        metrics = [{"name": "accuracy", "value": value}, {"name": "micro_f1", "value": 0.5}]
        first = {"metrics": metrics, "rows": [{"name": "micro_f1", "values": row.tolist()}]}
        of_items += [{**item, "order": 0, **first}, {**item, "order": 1}]
    table = pa.Table.from_pylist(of_items, schema=PREDICTIONS_SCHEMA)
    parquet.write(str(place / "predictions" / "run.parquet"), table.drop_columns(["rows"]) if older else table)
    mean = float(np.mean([value for value in right if value is not None]))
    figures = {"accuracy": (mean, "mean"), "micro_f1": (compute("micro_f1", rows), "micro_f1")}
    metrics_told = {n: {"value": v, "statistic": counted.get(n, s)} for n, (v, s) in figures.items()}
    told = {"cells": [{"benchmarks": {"bells": {"kind": "label", "metrics": metrics_told}}}]}
    (place / "metrics.json").write_text(json.dumps(told))
    return str(place)


def test_a_difference_has_the_interval_of_a_paired_bootstrap(tmp_path: Path) -> None:
    """F1 as the F1 of drawn items, and not as a mean of theirs; items may stand in another order."""
    old, new = values_of(0.5), values_of(0.6)
    a = evaluation(tmp_path / "a", old)
    turned = [f"clip-{at}" for at in range(ITEMS)][::-1]
    b = evaluation(tmp_path / "b", new[::-1], turned)
    accuracy, f1 = differences(a, b)
    wanted = paired_bootstrap(old[::-1], new[::-1])[:3]
    assert (accuracy.difference, accuracy.low, accuracy.high) == pytest.approx(wanted)
    assert (accuracy.name, accuracy.a, accuracy.b, accuracy.items, accuracy.why) == (
        "bells/accuracy", 0.5, 0.6, ITEMS, "",
    )  # fmt: skip
    assert accuracy.low is not None and 0.05 < accuracy.low < 0.1 < accuracy.high < 0.15  # type: ignore[operator]
    wanted = paired_bootstrap(rows_of(old)[::-1], rows_of(new)[::-1], statistic="micro_f1")[:3]
    assert (f1.difference, f1.low, f1.high) == pytest.approx(wanted)
    (same, _) = differences(a, a)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)


def test_what_one_of_two_runs_leaves_out_counts_in_neither(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", values_of(0.5))
    b = evaluation(tmp_path / "b", values_of(0.5, gone=0))
    accuracy, _ = differences(a, b)
    assert (accuracy.difference, accuracy.items) == (0.0, ITEMS - 1)
    assert accuracy.b is not None and accuracy.b < 0.5, "the figure is as it was told"


@pytest.mark.parametrize(
    ("other", "accuracy", "f1"),
    [
        ({"right": values_of(0.6, 150)}, *["the items are not the same: 200 in A, 150 in B, 150 in both"] * 2),
        ({"older": True}, "", OLDER),
        ({"accuracy": "mean_of_set"}, OTHER_WAY, ""),
        ({"right": [0.0, *[None] * 199]}, "no item counts in both", ""),
    ],
)  # fmt: skip
def test_where_there_is_no_interval_it_is_told_why(
    tmp_path: Path, other: dict[str, Any], accuracy: str, f1: str
) -> None:
    a = evaluation(tmp_path / "a", values_of(0.5, gone=0))
    b = evaluation(tmp_path / "b", **{"right": values_of(0.6), **other})
    found = differences(a, b)
    assert [each.why for each in found] == [accuracy, f1]
    assert [each.low is None for each in found] == [bool(accuracy), bool(f1)]
    assert None not in [each.difference for each in found]


def test_a_figure_of_one_run_alone_has_no_difference(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", values_of(0.5)), evaluation(tmp_path / "b", values_of(0.5))
    (tmp_path / "b" / "metrics.json").write_text("{}")
    why = "one of the runs has no such figure"
    assert differences(a, b)[0] == Difference("bells/accuracy", 0.5, why=why)
    assert differences(b, a)[0] == Difference("bells/accuracy", None, 0.5, why=why)
    assert differences(b, b) == []


def test_compare_prints_the_interval_and_shows_it_on_the_page(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", values_of(0.5))
    b = evaluation(tmp_path / "b", values_of(0.6), older=True)
    (accuracy, _) = differences(a, b)
    said = mats("compare", a, b, "--out", str(tmp_path / "page.html"))
    interval = f"{accuracy.low:+.4f} to {accuracy.high:+.4f}"
    (line,) = (line for line in said.splitlines() if line.startswith("bells/accuracy"))
    assert line.split("  ")[-2:] == ["+0.1000", f"95 % interval {interval}, 200 items"]
    assert "no interval: the predictions of B do not tell" in said
    page = (tmp_path / "page.html").read_text()
    assert "<td>+0.1000</td><td" in page and interval in page and "none: the predictions of B do not tell" in page
