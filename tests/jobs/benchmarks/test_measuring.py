"""What benchmarks share: a place to work in, a median, memory of processes, tables."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs.benchmarks import measuring


def test_a_workplace_is_made_and_only_a_temporary_one_is_removed(tmp_path: Path) -> None:
    with measuring.workplace(str(tmp_path / "a" / "b")) as place:
        assert place == tmp_path / "a" / "b" and place.is_dir()
    assert place.is_dir()
    with measuring.workplace(None) as place:
        assert place.is_dir()
    assert not place.exists()


def test_a_table_fills_short_rows(capsys: pytest.CaptureFixture[str]) -> None:
    measuring.print_table("two ways", ("", "one (a)", "two (b)"), [("rate", "1.0", "2.0"), ("alone", "3.0")])
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [["rate", "1.0", "2.0"], ["alone", "3.0", ""]]


def test_figures_are_json_or_shown(capsys: pytest.CaptureFixture[str]) -> None:
    measuring.print_figures({"driver_peak_mb": {"10": 5.0}}, True, print)
    assert json.loads(capsys.readouterr().out) == {"driver_peak_mb": {"10": 5.0}}
    measuring.print_figures({"driver_peak_mb": {"10": 5.0}}, False, lambda f: measuring.print_driver_memory(f, "clips"))
    assert capsys.readouterr().out == "driver, 10 clips: 5 MB at most\n"


def test_the_median_leaves_out_the_first_call() -> None:
    calls: list[float] = []
    waits = [0.2, 0.01, 0.01, 0.01]

    def run() -> None:
        time.sleep(waits[len(calls)])
        calls.append(0)

    assert 0.01 <= measuring.median_s(run, times=3) < 0.1
    assert len(calls) == 4


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="proportional set size is Linux's")
def test_memory_of_a_child_counts() -> None:
    code = "import time; held = bytearray(100_000_000); print(flush=True); time.sleep(60)"
    with measuring.watched(measuring.memory_of_tree_mb) as before:
        time.sleep(0.5)
    with measuring.watched(measuring.memory_of_tree_mb) as after:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1.0)
        child.kill()
        child.communicate()
    assert max(before) > 10
    assert 90 < max(after) - max(before) < 200


def test_a_cpu_has_nothing_to_wait_for_and_memory_all_the_same() -> None:
    device = torch.device("cpu")
    measuring.wait_for(device)
    measuring.empty_cache(device)
    assert measuring.memory_gb(device) > 0.05
    assert measuring.device_name(device).startswith("cpu, ")
