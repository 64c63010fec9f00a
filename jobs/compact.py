"""`mats compact`: what a compaction says of itself."""

from __future__ import annotations

import typer

from jobs.terminal.display import duration
from pipelines.compact import run_compact
from pipelines.settings.compact import CompactSettings


def run(settings: CompactSettings) -> int:
    """Compact and print what was done; exit code 0."""
    result = run_compact(settings)
    new = "" if result.new_rows == result.rows else f", {result.new_rows} new"
    typer.echo(
        f"rows    {result.rows}{new}\nfiles   {result.files}, of {result.parts} parts\n"
        f"size    {result.bytes / 1e6:.1f} MB\n"
        f"time    {duration(result.wall_s)}\noutput  {result.folder}"
    )
    return 0
