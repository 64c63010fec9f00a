"""`mats serve`: runs in a browser, to find, hear, ask and put right; and a page to drop a sound on."""

from __future__ import annotations

import typer

from jobs.terminal.options import settings_command
from pipelines.settings.serve import TOKEN, ServeSettings

app = typer.Typer()


@settings_command(app, "serve", ServeSettings, ("runs",))
def serve(settings: ServeSettings) -> int:
    """Show RUNS in a browser: find, listen, ask, put right. With --demo also a page to drop a sound on."""
    from jobs.terminal.display import RunDisplay
    from pipelines.serve.run import run_serve

    with RunDisplay("rows", "reading") as display:

        def ready(url: str, notes: list[str]) -> None:
            display.close()
            for note in notes:
                typer.echo(f"mats: {note}", err=True)
            how = f"?token=…   (the token is in ${TOKEN})" if settings.token else ""
            typer.echo(f"{url}{how}   Ctrl-C stops it")

        run_serve(settings, display, ready)
    return 0
