"""Evaluate a model every night, and say when it has become worse.

    python examples/nightly_evaluation.py MODEL RUNS [BENCHMARKS] [ITEMS]

RUNS (a folder or URL) keeps the history and a folder a night, with predictions, metrics and a page. The first run is
accepted as it is; a later one is compared with the last that was accepted, and ends with code 4 where a metric fell by
more than a hundredth. `mats history show RUNS/history` prints all of them. The same as a line of cron:
jobs/configs/evaluate.cron.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone

from mats_core import storage
from pipelines import run_evaluate

GATE_CLOSED = 4


def main(model: str, runs: str, benchmarks: str = "soundworld", items: int | None = None) -> int:
    night = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%S")
    history = storage.join(runs, "history")
    first = not storage.is_dir(history)
    done = run_evaluate(
        model=model,
        benchmarks=benchmarks,
        out=storage.join(runs, night),
        limit=items,
        history=history,
        against="" if first else "accepted",
        tolerance=0.01,
        accept=True,
    )
    for cell in done.cells:
        for result in cell.results:
            for name, metric in result.scores.metrics.items():
                if metric.value is not None:
                    print(f"{result.data.name:24} {name:20} {metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})")
    print(f"page: {storage.join(done.out, 'report.html')}")
    if done.verdict is not None and not done.verdict.open:
        print("worse than before:", *done.verdict.reasons, sep="\n  ")  # here: mail it, or post it where you read it
        return GATE_CLOSED
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:4], *(int(items) for items in sys.argv[4:])))
