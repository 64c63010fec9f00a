"""The file that a data set's own judge takes, where its answers are judged elsewhere."""

from __future__ import annotations

from mats_core.scoring import Answers
from mats_core.scoring.chat import air_bench_lines
from mats_core.scoring.choices import mmau_records
from pipelines.evaluate.datasets.definition import AIR_BENCH, MMAU
from pipelines.evaluate.datasets.loading import LoadedSet

AIR_BENCH_FILE = "Chat_result_modelx.jsonl"


def judge_file(data: LoadedSet, answers: Answers, seed: int = 0) -> tuple[str, str] | None:
    """(file name, text) for the publisher's judge; None where a data set has none.

    AIR-Bench: the JSON lines that its score_chat.py reads. MMAU's test part, whose answers are withheld: all its own
    records with ``model_prediction``.
    """
    if data.definition.judge == AIR_BENCH:
        return AIR_BENCH_FILE, air_bench_lines(data.items, answers)
    if data.definition.judge == MMAU:
        return f"{data.definition.name}_predictions.json", mmau_records(data.records, data.items, answers, seed)
    return None
