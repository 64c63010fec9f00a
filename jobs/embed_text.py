"""`mats embed-text`: what it prints, and its exit code."""

from __future__ import annotations

import sys

from jobs.terminal.display import RunDisplay, duration, to_continue
from jobs.terminal.options import EXIT_INTERRUPTED
from mats_core.storage.uris import public_uri
from pipelines.settings.text import EmbedTextSettings
from pipelines.text.embed_text import EmbedTextResult, run_embed_text


def run(settings: EmbedTextSettings) -> int:
    """Embed the corpora; the exit code."""
    with RunDisplay("records", "embedding") as display:
        result = run_embed_text(settings, display)
    print_result(result)
    if result.status == "interrupted":
        print(f"mats: interrupted; finished parts are kept. {to_continue(settings.overwrite)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def print_result(result: EmbedTextResult) -> None:
    """The end of a run, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if result.status == "complete_before":
        shown = public_uri(result.output)
        console.print(f"done already: {result.run['captions']} captions in {shown}", soft_wrap=True, markup=False)
        return
    run = result.run
    problems = ", ".join(f"{name} {count}" for name, count in sorted(run["problems"].items()))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("records", f"{run['records']} in {run['files']} files")
    table.add_row("unusable", f"{run['bad']}: {problems}; lines in _corpora.json" if run["bad"] else "none")
    table.add_row("captions", f"{run['captions']} distinct")
    table.add_row("time", duration(run["wall_s"]))
    if run["records_new"]:
        table.add_row("rate", f"{run['records_per_s']:.0f} records/s once started")
    table.add_row("output", public_uri(result.output))
    console.print(table)
