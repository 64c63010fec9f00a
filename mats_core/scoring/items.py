"""What is scored and what comes out of it: items with their truth, and scores with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["caption", "label", "labels", "choice", "chat"]
KINDS: tuple[Kind, ...] = ("caption", "label", "labels", "choice", "chat")


@dataclass(frozen=True)
class Item:
    """One question about one sound, with its truth.

    item_id: unique within its benchmark, and the same from run to run.
    uri: the audio; ``start_s`` and ``end_s`` (seconds) name a part of it, None means all. ``only_channel``:
        from 0; None means the mean of all.
    task, question, tag: what the model is asked; an empty question leaves the task's own instruction.
    references: captions or free answers, any of which is right (kinds ``caption`` and ``chat``).
    labels: what is true (kind ``label``: exactly one; kind ``labels``: a set).
    choices: the options of kind ``choice``, in the publisher's order; ``answer`` is one of them.
    category: a group that gets a figure of its own, such as MMAU's sound, music, speech.
    extra: what else the publisher's file says and an output file must repeat (AIR-Bench).
    """

    item_id: str
    uri: str
    task: str
    question: str = ""
    tag: str = ""
    references: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: str = ""
    category: str = ""
    start_s: float | None = None
    end_s: float | None = None
    only_channel: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One metric over the items of a benchmark.

    value: the figure, over the items that count; None when none does.
    low, high: 95 % bootstrap interval over items (percentile method).
    n: items that count.
    values: a number an item, parallel to the items; None where the item is left out. Their mean is ``value``
        only where ``statistic`` is ``mean``.
    rows: what ``statistic`` is computed from, numbers an item (None: left out). For ``mean`` it is ``(value,)``;
        wide ones are arrays.
    statistic: name of the function of rows, see `mats_core.scoring.bootstrap.STATISTICS`.
    left_out: (item id, why).
    higher_is_better: False for a rate of failures.
    note: what a reader must know to compare the figure with published ones.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    values: tuple[float | None, ...]
    rows: tuple[Sequence[float] | np.ndarray | None, ...]
    statistic: str = "mean"
    left_out: tuple[tuple[str, str], ...] = ()
    higher_is_better: bool = True
    note: str = ""


@dataclass(frozen=True)
class Unavailable:
    """A metric that cannot run here: named, with the reason and what to do. Never a zero."""

    name: str
    why: str
    install: str


@dataclass
class Scores:
    """All metrics of one model (or baseline) on one benchmark.

    ``details`` holds what is not one number: ``confusion`` ({true: {predicted: count}}), ``per_label``,
    ``per_category``, ``match`` (how answers were matched), ``orders`` (accuracy of every order of the options),
    ``matched`` (the label or choice that each answer was taken for, parallel to the items, None for no match).
    """

    metrics: dict[str, Metric] = field(default_factory=dict)
    unavailable: list[Unavailable] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``: everything but the per-item values and rows."""
        return {
            "metrics": {
                name: {
                    "value": m.value, "low": m.low, "high": m.high, "n": m.n, "statistic": m.statistic,
                    "left_out": [list(pair) for pair in m.left_out],
                    "higher_is_better": m.higher_is_better, "note": m.note,
                }
                for name, m in self.metrics.items()
            },
            "unavailable": [vars(u) for u in self.unavailable],
            "details": {key: value for key, value in self.details.items() if key != "matched"},
        }  # fmt: skip


Answers = Sequence["str | None"] | Sequence[Sequence["str | None"]]
