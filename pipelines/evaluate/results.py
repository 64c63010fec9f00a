"""What an evaluation comes to, as plain data: figures of a data set, of a cell of the grid, of the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mats_core.scoring import Metric, Scores
from pipelines.evaluate.answers import ItemAnswer
from pipelines.evaluate.datasets import LoadedSet
from pipelines.evaluate.gate import Verdict
from pipelines.settings.evaluate import Cell


@dataclass
class Gap:
    """Where audio lies beside its texts, before and after the bridge.

    cosine: mean cosine of true pairs; distance: of the two centroids; points: 2-D [N, 2] in one PCA of all three.
    """

    cosine: dict[str, float]
    distance: dict[str, float]
    points: dict[str, list[tuple[float, float]]] = field(repr=False)


@dataclass
class SetResult:
    """One data set in one cell: an answer an item, in the order of its items, and what they are worth.

    baselines: name → scores of answers that take no hearing. judge_file: the file that the publisher's own judge
    takes, relative to OUT; "" where there is none.
    """

    data: LoadedSet
    answers: list[ItemAnswer] = field(repr=False)
    scores: Scores
    baselines: dict[str, Scores]
    gap: Gap | None = None
    judge_file: str = ""

    @property
    def texts(self) -> list[Any]:
        """What `score` takes, one an item: of items with options a text an order, else the first text or None."""
        if self.data.definition.kind == "choice":
            return [answer.texts for answer in self.answers]
        return [answer.texts[0] if answer.texts else None for answer in self.answers]

    @property
    def answered(self) -> list[float]:
        """1 or 0 an item: whether every order of it got an answer."""
        return [float(bool(a.texts) and all(text is not None for text in a.texts)) for a in self.answers]

    @property
    def word_counts(self) -> list[int]:
        """Words of every answer that was given."""
        return [len(text.split()) for answer in self.answers for text in answer.texts if text is not None]

    @property
    def lengths(self) -> dict[str, float]:
        """Words of the answers: mean, and the 5th, 50th and 95th percentile; empty where there are no answers."""
        counts = self.word_counts
        if not counts:
            return {}
        return {"mean": float(np.mean(counts)), **{f"p{p}": float(np.percentile(counts, p)) for p in (5, 50, 95)}}

    @property
    def leading(self) -> Metric | None:
        """The first metric that could be computed."""
        return next((metric for metric in self.scores.metrics.values() if metric.value is not None), None)


@dataclass
class CellResult:
    """One cell of the grid: its results in the order of the data sets, and the `_run.json` of its captioning run."""

    cell: Cell
    results: list[SetResult]
    run: dict[str, Any]


@dataclass
class Evaluation:
    """What an evaluation came to. status: complete, or that of the captioning run that did not end.

    seconds: wall time of the answers, the scores and the page.
    """

    status: str
    run_id: str
    out: str
    cells: list[CellResult] = field(default_factory=list)
    verdict: Verdict | None = None
    accepted: bool = False
    rows: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Share of all answers that failed."""
        return self.failed / self.rows if self.rows else 0.0


def upward(metric: Metric | None) -> float:
    """A metric's value as a number that is larger where the metric is better; −∞ where there is none."""
    if metric is None or metric.value is None:
        return -np.inf
    return metric.value if metric.higher_is_better else -metric.value


def best_cell(cells: Sequence[CellResult]) -> CellResult:
    """The cell whose leading metrics are best on average over data sets (ranks): the one shown in full."""
    ranks = np.zeros(len(cells))
    for index in range(len(cells[0].results)):
        values = [upward(cell.results[index].leading) for cell in cells]
        ranks += np.argsort(np.argsort([-value for value in values], kind="stable"), kind="stable")
    return cells[int(ranks.argmin())]
