"""The file that a benchmark's own judge takes, where its answers are judged elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from mats_core.scoring import Answers, Item
from mats_core.scoring.chat import air_bench_lines
from mats_core.scoring.choices import mmau_records
from pipelines.benchmarks.definition import Benchmark

AIR_BENCH_FILE = "Chat_result_modelx.jsonl"


def judge_file(benchmark: Benchmark, items: Sequence[Item], answers: Answers, seed: int = 0) -> tuple[str, str] | None:
    """(file name, text) for the publisher's judge; None where `mats evaluate` scores the answers itself.

    AIR-Bench: the JSON lines that its score_chat.py reads. MMAU's test part, whose answers are withheld: its own
    records with ``model_prediction``.
    """
    if benchmark.kind == "chat":
        return AIR_BENCH_FILE, air_bench_lines(items, answers)
    if benchmark.options.get("answers_withheld"):
        return f"{benchmark.name}_predictions.json", mmau_records(items, answers, seed)
    return None
