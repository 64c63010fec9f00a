"""`mats sample`: clips of a run for a person to judge, and how many of its answers are right by them."""

from __future__ import annotations

import typer

from jobs.terminal.options import settings_command
from mats_core.errors import counted
from mats_core.storage.uris import public_uri
from pipelines.settings.export import SampleSettings

app = typer.Typer()


@settings_command(app, "sample", SampleSettings, ("run",))
def sample(settings: SampleSettings) -> int:
    """Draw clips of RUN for a person to judge (--out), or say by them how many answers are right (--judge)."""
    from pipelines.sample.run import run_sample

    found = run_sample(settings)
    if settings.judge is None:
        strata = counted(found.strata, "stratum", "strata")
        how = f"in {strata} by confidence" if found.by_confidence else "at random: they have no confidence"
        failed = f"; {counted(found.failed, 'row')} without one" if found.failed else ""
        typer.echo(f"{found.drawn:,} of {counted(found.rows, 'answer')} to {public_uri(found.output)}, {how}{failed}")
        typer.echo('next    write yes or no into the column "correct", then')
        typer.echo(f"        mats sample {public_uri(settings.run)} --judge {public_uri(found.output)}")
        return 0
    for note in found.notes:
        typer.echo(f"mats: {note}", err=True)
    typer.echo(f"all answers  {found.judged}")
    for name, share in found.parts.items():
        typer.echo(f"{name:12} {share}")
    if found.says is not None:
        typer.echo(f"confidence   says {found.says:.1%} on average")
        least = found.threshold
        if least is None:
            typer.echo(f"             there is no confidence from which on {settings.target:.0%} are right")
        else:
            typer.echo(f"             from {least.confidence:.3f} on {least.share}: {least.kept:.0%} of the answers")
    return 0
