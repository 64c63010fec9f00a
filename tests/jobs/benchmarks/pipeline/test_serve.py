from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmarks.pipeline.serve import RARE_IN, measure, print_serve


def test_a_small_run_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    figures = measure(tmp_path, 3000)
    totals = {name: each["total"] for name, each in figures["queries"].items()}
    assert totals["first page"] == 3000 and totals["errors of one kind"] == 1 and totals["no such word"] == 0
    assert totals["a rare word"] == 3000 // RARE_IN + 1 and totals["part of a name"] == 60
    assert 0 < totals["three words"] < totals["a frequent word"] < 3000
    print_serve(figures)
    assert "3000 rows" in capsys.readouterr().out
