"""`mats benchmark caption`: the two runs of the plain processes as one, and (long) the whole on a few files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobs.benchmarks.pipeline.caption import mean_of


def test_rates_of_two_runs_are_those_of_their_mean_time() -> None:
    first = {"start_s": 8.0, "busy_s": 10.0, "rows_per_s": 20.0, "real_time_factor": 200.0, "stage_s": {"embed_s": 9.0}}
    second = {
        "start_s": 6.0,
        "busy_s": 20.0,
        "rows_per_s": 10.0,
        "real_time_factor": 100.0,
        "stage_s": {"embed_s": 7.0},
    }
    found = mean_of([first, second])
    assert (found["start_s"], found["busy_s"], found["stage_s"]) == (7.0, 15.0, {"embed_s": 8.0})
    assert found["rows_per_s"] == pytest.approx(200 / 15, abs=1e-3)
    assert found["real_time_factor"] == pytest.approx(2000 / 15, abs=1e-3)
    assert found["rates"] == [20.0, 10.0]


@pytest.mark.long
@pytest.mark.e2e
def test_both_ways_over_a_few_files() -> None:
    command = [sys.executable, "-m", "jobs", "benchmark", "caption", "--files", "40", "--seconds", "2"]
    command += ["--rounds", "2", "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout)
    assert figures["files"] == 40
    assert figures["ratio"] == pytest.approx(
        figures["pipeline"]["rows_per_s"] / figures["plain"]["rows_per_s"], abs=2e-3
    )
    assert [len(figures[way]["rates"]) for way in ("plain", "pipeline")] == [3, 2]
    assert len(figures["ratios"]) == 2
    assert set(figures["plain"]["stage_s"]) <= set(figures["pipeline"]["stage_s"])
