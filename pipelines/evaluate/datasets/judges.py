"""The file that a benchmark's own judge takes, where its answers are judged elsewhere."""

from __future__ import annotations

from mats_core.scoring import Answers
from mats_core.scoring.chat import air_bench_lines
from mats_core.scoring.choices import mmau_records
from pipelines.evaluate.datasets.definition import AIR_BENCH, MMAU, Benchmark
from pipelines.evaluate.datasets.loading import Reading

AIR_BENCH_FILE = "Chat_result_modelx.jsonl"


def judge_file(benchmark: Benchmark, reading: Reading, answers: Answers, seed: int = 0) -> tuple[str, str] | None:
    """(file name, text) for the publisher's judge; None where a benchmark has none.

    AIR-Bench: the JSON lines that its score_chat.py reads. MMAU's test part, whose answers are withheld: all its own
    records with ``model_prediction``.
    """
    if benchmark.judge == AIR_BENCH:
        return AIR_BENCH_FILE, air_bench_lines(reading.items, answers)
    if benchmark.judge == MMAU:
        return f"{benchmark.name}_predictions.json", mmau_records(reading.records, reading.items, answers, seed)
    return None
