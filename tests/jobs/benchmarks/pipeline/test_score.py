"""`mats benchmark score`: both ways are measured, and the share is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmarks.inputs import write_clips
from jobs.benchmarks.pipeline.score import measure, print_report, run_benchmark
from mats_core.errors import SettingsError


def test_the_share_is_the_difference_of_both_ways(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path, 40, 1.0)
    found = measure(tmp_path, tiny_model_dir, "caption")
    ms = found["ms"]
    assert found["files"] == 40 and all(value > 0 for value in ms.values())
    whole = ms["decode"] + ms["hear"] + ms["without"]
    assert found["share"] == pytest.approx((ms["with"] - ms["without"]) / whole, abs=1e-3)
    print_report(found)
    assert f"takes {found['share']:.1%} of" in capsys.readouterr().out


def test_too_little_is_refused() -> None:
    with pytest.raises(SettingsError, match="too little to measure"):
        run_benchmark(3, "builtin", 1.0, "caption", None, False)
