"""The sections one after the other, each in a process of its own: what one does to the card, no other one meets.

A process that hangs, or dies with the card's context, costs its own section: it is ended shortly after its deadline.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.benchmarks.gpu.report import print_report
from jobs.benchmarks.gpu.section import SIZES, write_line
from jobs.benchmarks.measuring import say, workplace
from mats_core.errors import SettingsError

SECONDS = {"ceilings": 15, "parity": 70, "generate": 75, "engine": 115, "clap": 75, "training": 110}
"""The sections, in their order, and how long each may take."""
GRACE_S = 5.0
"""A section looks at its deadline between measurements; it is ended so long after it."""
STARTS_S = 60.0
"""For what is imported, where the section before was too short for it."""
IN_ALL_S = 470.0


def run_benchmark(size: str, device: str, sections: Sequence[str], out: str | None, as_json: bool) -> int:
    """Measure and print: JSON lines at once, then the table and the text for BENCHMARKS.md.

    out: a file for the lines, which must not be there yet. Returns 1 where a section failed. Raises SettingsError.
    """
    if size not in SIZES:
        raise SettingsError("size", f'there is no size "{size}"', f"choose {', '.join(SIZES)}")
    for name in sections:
        if name not in SECONDS:
            raise SettingsError("section", f'there is no section "{name}"', f"choose {', '.join(SECONDS)}")
    with workplace(None) as folder:
        results = Path(out).absolute() if out else folder / "results.jsonl"
        try:
            results.open("x").close()
        except OSError as error:
            raise SettingsError("out", f"{out} cannot be made ({error.strerror})", "name a new file") from None
        chosen = [name for name in SECONDS if name in (sections or SECONDS)]
        measure(size, device, chosen, results, folder)
        lines = read_lines(results)
    if not as_json:
        print_report(lines, shown_command(size, device, sections), with_bars=size == "7b")
    return 1 if any("error" in line or line.get("holds") is False for line in lines) else 0


def shown_command(size: str, device: str, sections: Sequence[str]) -> str:
    """The command as a user types it."""
    words = ["mats benchmark gpu", f"--size {size}", f"--device {device}", *(f"--section {name}" for name in sections)]
    return " ".join(words)


def read_lines(results: Path) -> list[dict[str, Any]]:
    """The results so far; a last line that broke off is left out."""
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def measure(size: str, device: str, chosen: Sequence[str], results: Path, folder: Path) -> None:
    """Every chosen section, and what became of it, into `results`; in all at most IN_ALL_S."""
    over = time.monotonic() + IN_ALL_S
    following = [start(name, size, device, results, folder) for name in chosen[:1]]
    try:
        for at, name in enumerate(chosen):
            (process,) = following
            # what takes seconds to import is imported while the section before runs
            following = [start(each, size, device, results, folder) for each in chosen[at + 1 : at + 2]]
            say(f"{name}: at most {SECONDS[name]} s")
            found = watch(process, folder / f"{name}.begun", SECONDS[name], over)
            write_line(results, {"section": name, "what": "section", **found})
    finally:
        for process in following:
            end(process)


def start(name: str, size: str, device: str, results: Path, folder: Path) -> subprocess.Popen[str]:
    """A section's process, which waits for its limit, in seconds, on its standard input."""
    words = [sys.executable, "-m", "jobs.benchmarks.gpu.process", name, size, device, str(results), str(folder)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, text=True, start_new_session=True)


def watch(process: subprocess.Popen[str], begun: Path, limit: float, over: float) -> dict[str, Any]:
    """Let a section's process run for `limit` seconds: how long it took, and how it ended where it did not end well.

    begun: a file that the process makes once it has imported what it needs: its time counts from there. over: when all
    has to be over, of `time.monotonic()`.
    """
    started = time.monotonic()
    until = min(started + STARTS_S, over)
    counts = False
    try:
        with suppress(BrokenPipeError):
            print(min(limit, over - started), file=process.stdin, flush=True)
        while process.poll() is None and time.monotonic() < until:
            if not counts and begun.exists():
                counts, until = True, min(time.monotonic() + limit + GRACE_S, over)
            time.sleep(0.02)
        code = process.poll()
    finally:
        end(process)
    found: dict[str, Any] = {"took_s": time.monotonic() - started}
    if code is None:
        found["error"] = f"ended: {'over its deadline' if counts else 'it had not begun'}"
    elif code:
        found["error"] = f"its process ended with exit code {code}"
    return found


def end(process: subprocess.Popen[str]) -> None:
    """End a section's process and what it started (torch compiles in processes of its own)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
