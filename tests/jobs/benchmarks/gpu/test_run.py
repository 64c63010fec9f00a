"""Sections in processes of their own: a deadline that is kept, a process that dies, results that survive."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs.benchmarks.gpu import process, run
from jobs.benchmarks.gpu.section import Section
from mats_core.errors import SettingsError


def started(code: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code]
    return subprocess.Popen(words, stdin=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.processes
def test_a_section_from_the_command_to_its_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STARTS_S", "IN_ALL_S"):  # a busy machine imports for minutes
        monkeypatch.setattr(run, name, 400.0)
    monkeypatch.setitem(run.SECONDS, "ceilings", 200)
    out = tmp_path / "results.jsonl"
    assert run.run_benchmark("small", "cpu", ["ceilings"], str(out), False) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["section"] for line in lines} == {"ceilings"}
    assert [line["what"] for line in lines][:2] == ["card", "matrix product, bfloat16"]
    assert lines[-1]["what"] == "section" and "error" not in lines[-1]
    printed = capfd.readouterr().out
    assert "tflops" in printed and "## `mats benchmark gpu --size small --device cpu --section ceilings`" in printed
    for line in lines:
        assert json.dumps(line, ensure_ascii=False) in printed


@pytest.mark.processes
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import pathlib, time; input(); pathlib.Path({begun!r}).touch(); time.sleep(60)", "ended: over its deadline"),
        ("input()", None),
        ("import os; input(); os._exit(3)", "its process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended with exit code -9"),
    ],
)
def test_how_a_section_may_end(code: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 0.1)
    begun = tmp_path / "begun"
    one = started(code.format(begun=str(begun)))
    found = run.watch(one, begun, 0.5, time.monotonic() + 30)
    assert found.get("error") == said
    assert one.poll() is not None and found["took_s"] < 20


@pytest.mark.processes
def test_a_section_that_never_begins_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "STARTS_S", 0.2)
    found = run.watch(started("import time; time.sleep(60)"), tmp_path / "begun", 0.5, time.monotonic() + 30)
    assert found["error"] == "ended: it had not begun"


@pytest.mark.processes
def test_all_is_over_in_time_and_every_section_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one takes all the time that there is; none is left for the second."""
    monkeypatch.setattr(run, "IN_ALL_S", 1.0)
    monkeypatch.setattr(run, "start", lambda *given: started("import time; input(); time.sleep(60)"))
    began = time.monotonic()
    run.measure("small", "cpu", ["ceilings", "clap"], tmp_path / "results", tmp_path)
    assert time.monotonic() - began < 20
    assert [line["section"] for line in run.read_lines(tmp_path / "results")] == ["ceilings", "clap"]


def test_what_fails_in_a_section_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised, whatever it was: here the deadline is no number."""
    monkeypatch.setattr(sys.stdin, "readline", lambda: "soon\n", raising=False)
    process.main("ceilings", "small", "cpu", str(tmp_path / "results"), str(tmp_path))
    (line,) = run.read_lines(tmp_path / "results")
    assert line["error"].startswith("ValueError: could not convert string to float") and "traceback" in line


def test_a_process_whose_starter_is_gone_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "readline", lambda: "", raising=False)
    process.main("ceilings", "small", "cpu", str(tmp_path / "results"), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_what_computes(tmp_path: Path) -> None:
    section = Section("clap", "small", torch.device("cpu"), tmp_path / "r", tmp_path, 0.0)
    assert process.card(section)["torch"] == torch.__version__


def test_a_line_that_broke_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "results").write_text('{"section": "clap"}\n{"section": "tra')
    assert run.read_lines(tmp_path / "results") == [{"section": "clap"}]


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for size, sections, out, said in (
        ("13b", [], None, "size"),
        ("small", ["disk"], None, "section"),
        ("small", [], str(tmp_path / "there"), "out"),
        ("small", [], str(tmp_path / "no" / "folder"), "out"),
    ):
        with pytest.raises(SettingsError, match=said):
            run.run_benchmark(size, "cpu", sections, out, False)


def test_all_sections_together_take_less_than_eight_minutes() -> None:
    assert sum(run.SECONDS.values()) <= run.IN_ALL_S < 480
