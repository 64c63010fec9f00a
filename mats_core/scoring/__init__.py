"""Metrics of answers: each with its interval, its number of items, and what was left out and why.

``score`` is the way in; what is re-exported here is public, and so are `choices.order`, `choices.ask`, `baselines`,
`chat` and `captions.needs`. Anything above may import this room; it imports `errors` alone. Needs neither Ray nor a
model, and torch only where `aac-metrics` does.

- `score`: items and answers of a kind → scores.
- `items`: what is scored and what comes out of it.
- `captions`, `labels`, `choices`, `chat`: the metrics of each kind.
- `matching`: from a free answer to a label.
- `sureness`: how good the confidence of answers is, by which of them are right.
- `metric`: one metric from what each item contributes.
- `bootstrap`: statistics of rows, their intervals, and the difference of two runs.
- `baselines`: what needs no model of ours.
- `aac`: the published caption tools, their tokenizer and Java.
"""

# ruff: noqa: F401 (imported here to be used from elsewhere)

from mats_core.scoring.bootstrap import MEANS, OF_SET, STATISTICS, compute, interval, paired_bootstrap
from mats_core.scoring.items import KINDS, Answers, Item, Kind, Metric, Scores, Unavailable
from mats_core.scoring.matching import LabelSet
from mats_core.scoring.score import MEANINGS, METRICS, score
from mats_core.scoring.sureness import labels_right, reached, reliability_bins, right_answers, score_confidence
