"""`mats search`: find sounds by words, by another sound, or because nothing else is like them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from jobs.terminal.options import settings_command
from mats_core.errors import counted
from mats_core.storage.uris import public_uri
from pipelines.settings.search import SearchSettings

if TYPE_CHECKING:
    from pipelines.search.run import SearchResult

app = typer.Typer()


@settings_command(app, "search", SearchSettings, ("run", "query"))
def search(settings: SearchSettings) -> int:
    """Find windows of RUN's sounds that are like QUERY, or like a sound. The first search builds the index."""
    from jobs.terminal.display import RunDisplay
    from pipelines.search.run import run_search

    with RunDisplay("windows", "comparing" if settings.novel else "indexing") as display:
        result = run_search(settings, display)
    for note in result.notes:
        typer.echo(f"mats: {note}", err=True)
    if settings.json_:
        for hit in result.hits:
            typer.echo(json.dumps(hit))
    else:
        print_hits(result)
        for place in filter(None, (settings.out, settings.page)):
            typer.echo(public_uri(place))
    return 0


def print_hits(result: SearchResult) -> None:
    """The windows as a table on stdout."""
    from rich.table import Table

    from jobs.terminal.display import wide_console
    from pipelines.pages.answers import path_text, printable_path
    from pipelines.pages.render import at_time

    if not result.hits:
        typer.echo(f"nothing of {counted(result.windows, 'window')}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    placed = any(hit["cosine"] not in (None, hit["score"]) for hit in result.hits)  # else the score is the cosine
    sides = {"score": "right"} | ({"cosine": "right"} if placed else {})
    sides |= {"by": "left", "at": "right", "file": "left", "caption": "left"}
    for name, side in sides.items():
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    for hit in result.hits:
        at = f"{at_time(hit['start_s'])}–{at_time(hit['end_s'])}"
        name = printable_path(path_text(hit["uri"]))
        numbers = [f"{hit[each]:.3f}" for each in ("score", "cosine") if each in sides]
        table.add_row(*numbers, hit["by"], at, name, " ".join((hit["caption"] or "").split()))
    console = wide_console()
    console.print(table)
    console.print(f"{len(result.hits)} of {counted(result.windows, 'window')}, {1000 * result.query_s:.0f} ms")
