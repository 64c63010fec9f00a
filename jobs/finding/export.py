"""`mats export`: a run as other programs read it."""

from __future__ import annotations

import typer

from jobs.terminal.options import settings_command
from mats_core.storage.uris import public_uri
from pipelines.settings.export import ExportSettings

app = typer.Typer()


@settings_command(app, "export", ExportSettings, ("run", "output"))
def export(settings: ExportSettings) -> int:
    """Write RUN as a table, subtitles, label tracks, a manifest, or a data set with the audio in it."""
    from jobs.terminal.display import Display, duration
    from pipelines.export.run import run_export

    with Display("exporting") as display:
        result = run_export(settings, lambda seen: display.show("exporting", None, None, f"{seen.done} done"))
    lost = ", ".join(f"{code} {count}" for code, count in sorted(result.left_out.items()))
    more = f" (left out: {lost})" if lost else ""
    typer.echo(f"{result.rows} to {public_uri(result.output)}{more}, {duration(result.wall_s)}")
    return 0
