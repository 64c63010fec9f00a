"""Scores of answers against truth, each with its interval, its number of items, and what was left out and why.

``score`` is the way in; the families are in modules of their own. Nothing here needs Ray, and torch only where
`aac-metrics` is used for captions.
"""

from __future__ import annotations

from mats_core.scoring.bootstrap import OF_SET, STATISTICS, compute, interval, paired_bootstrap
from mats_core.scoring.items import KINDS, Answers, Item, Kind, Metric, Scores, Unavailable
from mats_core.scoring.matching import LabelSet
from mats_core.scoring.score import METRICS, score

__all__ = [
    "KINDS",
    "METRICS",
    "OF_SET",
    "STATISTICS",
    "Answers",
    "Item",
    "Kind",
    "LabelSet",
    "Metric",
    "Scores",
    "Unavailable",
    "compute",
    "interval",
    "paired_bootstrap",
    "score",
]
