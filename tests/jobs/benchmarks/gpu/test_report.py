"""The table and the text: figures beside their bars, failures in words."""

from __future__ import annotations

import pytest

from jobs.benchmarks.gpu.report import bars, figures, print_report, text_for_benchmarks

LINES = [
    {"section": "engine", "what": "card", "device": "NVIDIA H200", "torch": "2.11.0"},
    {"section": "engine", "what": "128 slots, 30 tokens", "tokens": 30, "answers_per_s": 150.24, "roofline": 0.4},
    {"section": "engine", "what": "128 slots, 60 tokens", "tokens": 60, "answers_per_s": 80.0, "roofline": 0.5},
    {"section": "training", "what": "48 samples a step", "error": "OutOfMemoryError: no", "traceback": "Traceback …"},
    {"section": "clap", "what": "64 windows", "skipped": "no time left"},
    {"section": "clap", "what": "section", "took_s": 12.5},
]


def test_a_bar_stands_beside_its_figure() -> None:
    assert [bars(line) for line in LINES] == [
        "",
        "answers_per_s ≥ 93: reached, roofline ≥ 0.5: MISSED",
        "roofline ≥ 0.5: reached",  # 93 answers/s are asked of answers of 30 tokens
        "",
        "",
        "",
    ]
    assert bars({"section": "parity", "what": "recorded runs", "holds": True}) == "holds ≥ 1: reached"


def test_the_text_has_every_figure_and_no_traceback() -> None:
    text = text_for_benchmarks(LINES, "mats benchmark gpu")
    assert text.startswith("## `mats benchmark gpu`\n")
    assert ", device NVIDIA H200, torch 2.11.0; random weights" in text
    assert "engine    128 slots, 30 tokens: tokens 30, answers_per_s 150.2, roofline 0.4  [answers_per_s ≥ 93" in text
    assert "48 samples a step: error OutOfMemoryError: no" in text and "Traceback" not in text
    assert "64 windows: skipped no time left" in text and "12.5" not in text
    assert "card unknown" in text_for_benchmarks([], "mats benchmark gpu")


def test_figures_of_any_kind() -> None:
    shown = figures({"section": "s", "what": "w", "a": 12345.6, "b": {"x": [0.5, 2]}, "c": True, "d": "e"})
    assert shown == "a 12,346, b (x [0.5, 2]), c True, d e"


def test_the_report_prints_table_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(LINES, "mats benchmark gpu")
    table, text = capsys.readouterr().out.split("\n## ")
    assert "MISSED" in table and "OutOfMemoryError" in table
    assert "MISSED" in text
    print_report(LINES, "mats benchmark gpu", with_bars=False)
    assert "MISSED" not in capsys.readouterr().out
