"""What `mats benchmark gpu` prints at its end: a table with bars beside figures, and a text for BENCHMARKS.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jobs.benchmarks.measuring import print_table

BARS: tuple[tuple[str, str, float], ...] = (
    ("engine", "answers_per_s", 93.0),
    ("engine", "roofline", 0.5),
    ("clap", "windows_per_s", 1500.0),
    ("training", "mfu", 0.45),
    ("parity", "least_equal", 0.99),
    ("parity", "holds", 1.0),
)
"""(section, figure, what the 7 B model is to reach on one H100 or H200). 93 answers/s, of 30 tokens, are those to every
window of a million hours in a day on 64 GPUs."""
_APART = ("section", "what", "traceback")


_SHOWN = (
    "device", "tflops", "gb_per_s", "us_each", "answers_equal", "least_equal", "tf32_on", "tf32_off", "answers_per_s",
    "roofline", "step_ms", "windows_per_s", "tokens_per_s", "mfu", "error", "skipped",
)  # fmt: skip
"""What the table shows of a result; the text has all of it."""


def print_report(lines: Sequence[dict[str, Any]], command: str, with_bars: bool = True) -> None:
    """The table, then the text."""
    rows = []
    for line in lines:
        shown = {name: line[name] for name in _SHOWN if name in line}
        if shown:
            rows.append((f"{line['section']}: {line['what']}", figures(shown), bars(line) if with_bars else ""))
    print_table(command, ("", "measured", "bar"), rows)
    print("\n" + text_for_benchmarks(lines, command, with_bars))


def figures(line: dict[str, Any]) -> str:
    """A result in one line."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in line.items() if name not in _APART)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def bars(line: dict[str, Any]) -> str:
    """The bars that a result is held against, and whether it reaches them; a rate's is that of answers of 30 tokens."""
    found = []
    for section, name, least in BARS:
        if line["section"] != section or name not in line or (name == "answers_per_s" and line.get("tokens") != 30):
            continue
        found.append(f"{name} ≥ {least:g}: {'reached' if line[name] >= least else 'MISSED'}")
    return ", ".join(found)


def text_for_benchmarks(lines: Sequence[dict[str, Any]], command: str, with_bars: bool = True) -> str:
    """A section of BENCHMARKS.md: date, card, command, every figure and its bar."""
    card = next((line for line in lines if line["what"] == "card"), {})
    title = f"{time.strftime('%Y-%m-%d')}, {figures(card) or 'card unknown'}; random weights unless said otherwise."
    told = [f"## `{command}`", "", title, "", "```"]
    for line in lines:
        if line["what"] not in ("card", "section") or "error" in line or "skipped" in line:
            bar = bars(line) if with_bars else ""
            told.append(f"{line['section']:9} {line['what']}: {figures(line)}" + (f"  [{bar}]" if bar else ""))
    return "\n".join([*told, "```"])
