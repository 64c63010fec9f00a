"""The figures of two evaluations beside each other, and how sure it is that they differ.

What each item contributed is in the predictions: so two runs that were never in one history can be compared as `gate`
compares runs of one, by a paired bootstrap over the items that both have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mats_core import storage
from mats_core.scoring import MEANS
from pipelines.data import generations, parquet
from pipelines.evaluate.gate import paired_difference
from pipelines.evaluate.history import ItemValues

_ROWS_AT_ONCE = 512
_Facts = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A metric of two evaluations. name: BENCHMARK/METRIC; a, b: its value in each, None where it has none.

    difference: B − A, over the `items` that count in both where there is an interval; low, high: the 95 % interval of
    that over resampled items. why: why there is no interval; "" where there is one.
    """

    name: str
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    items: int = 0
    why: str = ""


def record(run: str, name: str) -> dict[str, Any]:
    """What a run says of itself in the file `name`; nothing where that cannot be read, as of answers alone."""
    try:
        found = json.loads(storage.read_bytes(storage.join(run, name)))
    except (storage.StorageError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def figures(run: str) -> dict[str, _Facts]:
    """ "BENCHMARK/METRIC" → its value and how it is counted (kind, statistic), in the first cell of an evaluation."""
    cells = record(run, "metrics.json").get("cells") or [{}]
    return {
        f"{name}/{metric}": {"kind": own.get("kind"), **each}
        for name, own in (cells[0].get("benchmarks") or {}).items()
        for metric, each in (own.get("metrics") or {}).items()
    }


def differences(run_a: str, run_b: str, seed: int = 0) -> list[Difference]:
    """Every metric that one of two evaluations without a grid has, by their `metrics.json` and predictions."""
    a, b = figures(run_a), figures(run_b)
    items_a, items_b = (_item_values(run, each) if each else {} for run, each in ((run_a, a), (run_b, b)))
    found = []
    for name in dict.fromkeys([*a, *b]):
        first, second = a.get(name, {}).get("value"), b.get(name, {}).get("value")
        if first is None or second is None:
            found.append(Difference(name, first, second, why="one of the runs has no such figure"))
            continue
        why = _not_comparable(a[name], b[name], items_a.get(name), items_b.get(name))
        paired = None if why else paired_difference(items_a[name], items_b[name], a[name]["statistic"], seed)
        if paired is None:
            why = why or "no item counts in both"
            found.append(Difference(name, first, second, second - first, why=why))
        else:
            found.append(Difference(name, first, second, *paired))
    return found


def _not_comparable(a: _Facts, b: _Facts, items_a: ItemValues | None, items_b: ItemValues | None) -> str:
    """Why two figures cannot be compared item by item; "" where they can."""
    if [a.get(each) for each in ("kind", "statistic")] != [b.get(each) for each in ("kind", "statistic")]:
        return "it is counted in another way"
    if items_a is None or items_b is None:
        run = "A" if items_a is None else "B"
        return f"the predictions of {run} do not tell what each item contributed; evaluate it with this version"
    if set(items_a.items) != set(items_b.items):
        both = len(set(items_a.items) & set(items_b.items))
        return f"the items are not the same: {len(items_a.items):,} in A, {len(items_b.items):,} in B, {both:,} in both"
    return ""


def _item_values(run: str, figures: dict[str, _Facts]) -> dict[str, ItemValues]:
    """BENCHMARK/METRIC → what each item contributed to it, of the metrics that the predictions tell it of."""
    items: dict[str, list[str]] = {}
    rows: dict[str, dict[int, np.ndarray]] = {}  # of a metric, by the item's place
    wanted = ["benchmark", "item", "order", "metrics", "rows"]
    for info in generations.files(storage.join(run, "predictions")):
        for batch in parquet.batches(info.uri, _ROWS_AT_ONCE, wanted):
            for row in batch.filter(pc.equal(batch["order"], 0)).to_pylist():
                own = items.setdefault(row["benchmark"], [])
                told = {each["name"]: [each["value"]] for each in row.get("metrics") or () if each["value"] is not None}
                wide = {each["name"]: each["values"] for each in row.get("rows") or ()}
                for metric in told.keys() | wide.keys():
                    name = f"{row['benchmark']}/{metric}"
                    is_mean = figures.get(name, {}).get("statistic") in MEANS
                    if (numbers := (told if is_mean else wide).get(metric)) is not None:
                        rows.setdefault(name, {})[len(own)] = np.asarray(numbers, np.float64)
                own.append(row["item"])
    return {
        name: ItemValues({}, items[name.rpartition("/")[0]], np.array([*each]), np.stack([*each.values()]))
        for name, each in rows.items()
    }
