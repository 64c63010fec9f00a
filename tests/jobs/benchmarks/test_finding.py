from __future__ import annotations

from pathlib import Path

from jobs.benchmarks.finding import measure


def test_every_way_is_measured_on_sounds_it_has_not_met(tmp_path: Path) -> None:
    figures = measure(tmp_path, 60)
    ways = figures["ways"]
    assert figures["kinds"] >= 1 and len(ways) == 9
    for found in ways.values():
        for mean, low, high in found.values():
            assert 0 <= low <= mean <= high <= 1
    assert ways["echo"]["precision"][0] > ways["the bare words"]["precision"][0]
