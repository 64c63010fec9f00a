"""How a metric is put together from what each item contributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mats_core.scoring.bootstrap import Row, compute, interval
from mats_core.scoring.items import Answers, Item, Metric

NO_ANSWER = "no answer"


def of_values(
    name: str, items: Sequence[Item], values: Sequence[float | None], why: Sequence[str], seed: int, **facts: object
) -> Metric:
    """A metric that is the mean of a number an item."""
    return of_rows(name, items, [None if v is None else (v,) for v in values], values, why, "mean", seed, **facts)


def of_rows(
    name: str,
    items: Sequence[Item],
    rows: Sequence[Row | None],
    values: Sequence[float | None],
    why: Sequence[str],
    statistic: str,
    seed: int,
    **facts: object,
) -> Metric:
    """A metric that is a statistic of rows.

    rows, values: a row and a number an item, or None; what they say of an item that is left out is dropped.
    why: an item's reason to be left out ("" where it counts), parallel to the items.
    """
    rows = [None if gone else row for row, gone in zip(rows, why, strict=True)]
    values = [None if gone else value for value, gone in zip(values, why, strict=True)]
    counted = [row for row in rows if row is not None]
    low = high = value = None
    if counted:
        table = np.asarray(counted, np.float64)
        value = compute(statistic, table)
        low, high = interval(statistic, table, seed)
    return Metric(
        name=name, value=value, low=low, high=high, n=len(counted), values=tuple(values),
        rows=tuple(row if row is None or isinstance(row, np.ndarray) else tuple(row) for row in rows),
        statistic=statistic,
        left_out=tuple((item.item_id, reason) for item, reason in zip(items, why, strict=True) if reason),
        **facts,  # type: ignore[arg-type]
    )  # fmt: skip


def no_answer(answers: Answers) -> list[str]:
    """Why each item is left out for want of an answer; "" where there is one (an empty text is an answer)."""
    missing = [a is None if isinstance(a, str) or a is None else all(each is None for each in a) for a in answers]
    return [NO_ANSWER if gone else "" for gone in missing]


def per_category(items: Sequence[Item], values: Sequence[float | None], seed: int) -> dict[str, dict[str, float]]:
    """Mean, 95 % interval and number of items of every category; empty when the items have none."""
    found: dict[str, list[float]] = {}
    for item, value in zip(items, values, strict=True):
        if item.category and value is not None:
            found.setdefault(item.category, []).append(value)
    table = {}
    for name, group in sorted(found.items()):
        low, high = interval("mean", [(v,) for v in group], seed)
        table[name] = {"value": float(np.mean(group)), "low": low, "high": high, "n": len(group)}
    return table
