"""What a run looks like in a terminal: a progress bar, or plain lines where nobody watches; a last table."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mats_core.errors import counted
from mats_core.storage.uris import public_uri

if TYPE_CHECKING:
    from pipelines.archive.run import RunResult
    from pipelines.cluster.progress import Progress

PLAIN_EVERY_S = 10.0
_PIPED_WIDTH = 10_000
quiet = False
"""Whether nothing is said of work that goes on; `mats -q` sets it."""
Shown = TypeVar("Shown", bound="Display")


class Display:
    """A bar where somebody watches, else a line when the stage changes and now and then; on stderr: stdout is data."""

    def __init__(self, first: str) -> None:
        self._bar: Any = None
        self._stage, self._first = "", first
        self._last_line = 0.0

    def __enter__(self: Shown) -> Shown:
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            figures = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            console = Console(file=os.fdopen(os.dup(2), "w"), force_terminal=True)
            self._bar = Progress(SpinnerColumn(), *figures, TimeElapsedColumn(), console=console, transient=True)
            self._bar.start()
            self._bar.add_task(self._first, total=None, figures="")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show nothing more."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, stage: str, done: int | None, total: int | None, figures: str) -> None:
        """Where the work is, at this moment."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=stage, completed=done, total=total, figures=figures)
        elif not quiet and (stage != self._stage or now - self._last_line > PLAIN_EVERY_S):
            self._last_line = now
            self.say(f"{stage}: {figures}" if figures else stage)
        self._stage = stage

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            with suppress(OSError):  # a full disk behind standard error ends no run
                print(text, file=sys.stderr, flush=True)


class RunDisplay(Display):
    """Shows `Progress` as it comes: clips, clips/s, errors, time left."""

    def __init__(self, what: str = "clips", verb: str = "answering") -> None:
        super().__init__(_STAGES["scan"])
        self._what, self._verb = what, verb
        self._began: float | None = None
        self._done_then = 0

    def __call__(self, progress: Progress) -> None:
        """The callback of a pipeline."""
        now = time.monotonic()
        if progress.stage == "run" and self._began is None:
            self._began, self._done_then = now, progress.done  # what came at once says nothing about the rate
        done = progress.done if progress.total else None
        stage = self._verb if progress.stage == "run" else _STAGES[progress.stage]
        self.show(stage, done, progress.total or None, self._figures(progress, now))

    def _figures(self, progress: Progress, now: float) -> str:
        if progress.stage == "scan":
            return f"{counted(progress.done, 'file')}, {counted(progress.errors, 'error')}"
        what = several(progress.total, self._what)
        text = f"{progress.done}/{progress.total} {what}, {counted(progress.errors, 'error')}"
        busy = now - self._began if self._began is not None else 0.0
        fresh = progress.done - self._done_then
        if progress.stage == "run" and busy > 1 and fresh:
            left = (progress.total - progress.done) * busy / fresh
            text += f", {fresh / busy:.1f} {self._what}/s, {duration(left)} left"
        return text


_STAGES = {
    "wait": "waiting whether another run that holds OUTPUT is still alive",
    "scan": "reading the input",
    "start": "starting the model",
    "replay": "answering the model's own text",
    "train": "k-means",
    "merge": "merging",
    "done": "done",
}


def several(number: int, what: str) -> str:
    """What is counted, by its plural: "clips", but "clip" of one."""
    return what.removesuffix("s") if number == 1 else what


def to_continue(overwrite: bool) -> str:
    """What to do after an interruption."""
    return "To continue, give the same command again" + (" without --overwrite, which starts anew" if overwrite else "")


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min 10 s, 5 h 20 min."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def wide_console() -> Any:
    """Where tables go: as wide as the terminal; into a pipe or a file, as wide as they need. Names are no markup."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, markup=False, emoji=False)


def print_facts(rows: Sequence[tuple[str, str]], soft_wrap: bool = False) -> None:
    """Names and what belongs to them in two columns, on stdout; long values are broken unless `soft_wrap`."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    wide_console().print(table, soft_wrap=soft_wrap)


def skipped_endings(counts: Mapping[str, int], most: int = 8) -> str:
    """Files left out for their ending: "12 .txt, 3 .pdf, 1 without an ending", and the others together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {_printed(ending)}" for ending, count in ranked[:most]]
    others = sum(count for _, count in ranked[most:])
    return ", ".join(shown + [f"{others} others"] * bool(others))


def _printed(ending: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in ending)
    return text[:20] or "without an ending"


def print_done_before(what: str) -> None:
    """That a run had nothing to do, on stdout."""
    from rich.console import Console

    Console().print(f"done already: {what}", soft_wrap=True, markup=False)


def print_result(result: RunResult, what: str) -> None:
    """The end of a run, on stdout."""
    run = result.run
    gone, pruned = run.get("gone"), run.get("pruned")
    lost = f"{gone} known files are gone" if gone != 1 else "1 known file is gone"
    lost += "; their rows are left out of reports" if pruned else "; --prune leaves their rows out of reports"
    if result.status == "complete_before":
        there = f"{result.rows} {several(result.rows, what)} in {public_uri(result.output)}"
        print_done_before(there + (f"; {lost}" if gone else ""))
        return
    rows = [
        (what, f"{run['rows_done']} of {result.rows}" + (f", {result.new_rows} new" if run["rows_before"] else "")),
        ("audio", f"{result.seconds / 3600:.2f} h" if result.seconds > 5400 else duration(result.seconds)),
        ("errors", ", ".join(f"{code} {count}" for code, count in sorted(result.errors.items())) or "none"),
        ("time", f"{duration(result.wall_s)} (start {duration(run['start_s'])})"),
    ]
    if run.get("rows_incomplete"):
        lost = f"{run['rows_incomplete']} {several(run['rows_incomplete'], what)}, {duration(run['lost_s'])} of sound"
        rows.insert(2, ("incomplete", f"{lost} that could not be decoded"))
    once_started = run["steady"]
    if once_started.get("rows"):
        rate = f"{once_started['rows_per_s']:.1f} {what}/s once started"
        rows.append(("rate", f"{rate}, {once_started['real_time_factor']:.0f} × real time"))
    if run.get("skipped"):
        rows.append(("skipped", skipped_endings(run["skipped"])))
    if gone:
        rows.append(("gone", lost))
    print_facts([*rows, ("output", public_uri(result.output))])
