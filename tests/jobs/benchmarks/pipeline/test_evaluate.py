"""`mats benchmark evaluate`: the ratio is to both runs of `mats caption`; and (long) the whole on a few clips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.pipeline import evaluate
from mats_core.errors import SettingsError


def figures(rate: float) -> dict[str, Any]:
    return {"start_s": 8.0, "busy_s": 60 / rate, "rows_per_s": rate, "real_time_factor": rate * 5, "stage_s": {}}


def test_the_ratio_is_to_caption_before_and_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = iter((20.0, 10.0))
    monkeypatch.setattr(evaluate, "run_pipeline", lambda clips, out, model: figures(next(rates)))
    monkeypatch.setattr(evaluate, "run_evaluation", lambda *_: {**figures(12.0), "total_s": 30.0})
    found = evaluate.compare(tmp_path, 2, "builtin")
    assert found["caption"]["rates"] == [20.0, 10.0]
    assert found["ratio"] == pytest.approx(12 / (2 / (1 / 20 + 1 / 10)), abs=1e-3)
    assert len(list((tmp_path / "benchmarks-2" / "soundworld").iterdir())) == 2


def test_more_clips_than_there_are_is_refused() -> None:
    with pytest.raises(SettingsError, match="clips: 1001 cannot be measured; choose 2 to 1000"):
        evaluate.run_benchmark(1001, "builtin", None, True)


@pytest.mark.long
@pytest.mark.e2e
def test_both_over_a_few_clips() -> None:
    command = [sys.executable, "-m", "jobs", "benchmark", "evaluate", "--clips", "30", "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout)
    assert found["clips"] == 30
    assert found["ratio"] == pytest.approx(found["evaluate"]["rows_per_s"] / found["caption"]["rows_per_s"], abs=2e-3)
    assert found["evaluate"]["total_s"] > found["evaluate"]["busy_s"]
