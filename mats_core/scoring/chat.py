"""Open conversation, judged by another model: the file its judge takes, and how many questions were answered at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from mats_core.scoring.items import Answers, Item, Scores
from mats_core.scoring.metric import of_values

# What AIR-Bench's score_chat.py reads of every line, in the order its own Inference_Chat.py writes it.
AIR_BENCH_FIELDS = (
    "meta_info", "question", "answer_gt", "path", "task_name", "dataset_name", "response", "uniq_id",
)  # fmt: skip


def score(items: Sequence[Item], answers: Answers, wanted: Sequence[str], seed: int) -> Scores:
    """Kind ``chat``: the share of questions that got words for an answer; whether they are good the judge says.

    Every question counts: one without an answer, or with an empty one, is 0.
    """
    values = [float(isinstance(a, str) and bool(a.strip())) for a in answers]
    note = "share of questions answered; the answers are judged with the publisher's own script"
    groups = Counter(item.category for item in items)
    return Scores(
        metrics={name: of_values(name, items, values, [""] * len(items), seed, note=note) for name in wanted},
        details={"items_per_category": dict(sorted(groups.items()))},
    )


def air_bench_lines(items: Sequence[Item], answers: Answers) -> str:
    """The JSON lines that AIR-Bench's judge takes (its ``Chat_result_modelx.jsonl``), in the order of its own list.

    A question without an answer is left out, as its inference script does for a clip that is not there; the judge
    skips it.
    Raises ValueError: for items that were not read from ``Chat_meta.json``.
    """
    lines = []
    for item, answer in zip(items, answers, strict=True):
        absent = [name for name in AIR_BENCH_FIELDS if name != "response" and name not in item.extra]
        if absent:
            raise ValueError(f"item {item.item_id} has no {', '.join(absent)}: not from Chat_meta.json")
        if answer is not None:
            row = {name: answer if name == "response" else item.extra[name] for name in AIR_BENCH_FIELDS}
            lines.append(json.dumps(row, ensure_ascii=False))
    return "".join(line + "\n" for line in lines)
