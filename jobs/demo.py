"""`mats demo`: write a small, untidy archive, caption it with the embedded model, and show what came out."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from jobs.terminal.commands import EXIT_INTERRUPTED, command
from mats_core.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.pages.report import ReportResult

app = typer.Typer()
MARK = ".mats-demo"


@command(app, "demo")
def demo(
    folder: str = typer.Argument("demo", help="Where to work; made anew each time."),
    seed: int = typer.Option(0, help="Which archive."),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
) -> int:
    """Write a small, untidy archive, caption it, and leave a report to look at and listen to."""
    from jobs.terminal.display import RunDisplay, duration, print_result
    from mats_core.soundworld.archive import write_archive, write_truth
    from pipelines.archive.caption import run_caption
    from pipelines.pages.report import write_report
    from pipelines.settings.archive import CaptionSettings
    from pipelines.settings.base import build

    started = time.monotonic()
    root = Path(folder)
    archive, out, page = root / "archive", root / "out", root / "report.html"
    _clear(root)
    truth = write_archive(archive, seed)
    write_truth(truth, root / "truth.jsonl")
    print(f"{len(truth)} files written to {archive}", file=sys.stderr)
    settings = build(CaptionSettings, {"input": str(archive), "output": str(out), "model": model, "overwrite": True})
    with RunDisplay("clips") as display:
        result = run_caption(settings, display)
    if result.status not in ("complete", "complete_before"):
        print(f"mats: the run is {result.status}; run the demo again", file=sys.stderr)
        return EXIT_INTERRUPTED if result.status == "interrupted" else 1
    report = write_report(str(out), str(page), truth, title="What the demo archive sounds like")
    _print_answers(report)
    print_result(result, "clips")
    took = duration(time.monotonic() - started)
    print(f"\nDone in {took}. Look and listen: {page} ({report.size_bytes / 1e6:.1f} MB)")
    print(f"Find, ask, put right: mats serve {shlex.quote(str(out))}, then open http://127.0.0.1:8000/")
    programs = os.path.dirname(os.path.abspath(sys.executable))
    if shutil.which("mats") is None and os.path.exists(os.path.join(programs, "mats")):
        print(f"So that this shell finds mats: export PATH={shlex.quote(programs)}:$PATH")
    return 0


def _clear(root: Path) -> None:
    """Remove an earlier demo; refuse a folder that is something else."""
    try:
        if root.exists() and any(root.iterdir()) and not (root / MARK).exists():
            problem = f'"{root}" holds files that no demo made'
            raise SettingsError("folder", problem, "choose a new or empty folder, or an earlier demo")
        root.mkdir(parents=True, exist_ok=True)
        (root / MARK).touch()  # from here on the folder is known as a demo's, however far it gets
        shutil.rmtree(os.fsencode(root / "archive"), ignore_errors=True)
    except OSError as error:
        raise SettingsError("folder", f'"{root}" cannot be written ({error})', "choose another folder") from None


def _print_answers(report: ReportResult) -> None:
    """One line a minute of audio: file, length, answer, labels right, missed (in brackets) and wrong (struck out)."""
    from rich.table import Table
    from rich.text import Text

    from jobs.terminal.display import wide_console

    console = wide_console()
    stripes = ["", "on grey7"] if console.is_terminal else []
    table = Table(box=None, pad_edge=False, header_style="bold", row_styles=stripes)
    table.add_column("file", overflow="fold", max_width=34)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold", ratio=1 if console.is_terminal else None)
    table.add_column("sounds", overflow="fold", max_width=30)
    for file in report.files:
        name = f"{file['folder']}/{file['name']}" if file["folder"] else file["name"]
        for part in file["parts"]:
            error = Text(f"{part['error_code']}: {part['error_message']}", style="red") if part["error_code"] else None
            length = _time(part, len(file["parts"]) > 1)
            table.add_row(Text(name.replace("\n", "⏎")), length, error or part["text"], _labels(part))
            name = ""
    console.print(table)
    if report.labels.f1 is not None:
        counts = ", ".join(f"{report.labels[mark]} {mark}" for mark in ("right", "missed", "wrong"))
        console.print(f"labels: {counts} (F1 {report.labels.f1:.3f})\n")


def _time(part: dict[str, Any], one_of_many: bool) -> str:
    """How long a file is; of a long file, where this part begins."""
    from pipelines.pages.render import clock

    if part["error_code"]:
        return ""
    return f"from {clock(part['start']) if part['start'] else '0:00'}" if one_of_many else clock(part["length"])


def _labels(part: dict[str, Any]) -> Any:
    from rich.text import Text

    styles = {"right": ("✓ ", "green"), "missed": ("○ ", "yellow"), "wrong": ("✗ ", "red")}
    return Text(" ").join(Text(styles[mark][0] + label, style=styles[mark][1]) for label, mark in part["labels"])
