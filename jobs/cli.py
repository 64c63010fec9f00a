"""`mats`: the commands of all jobs. A command imports Ray, torch and the pipelines when it runs."""

from __future__ import annotations

import sys

import typer

from jobs import archive, ask, demo, doctor, evaluate, import_reference, soundworld, submit, text, train
from jobs.benchmarks import commands as benchmarks
from jobs.finding import export, sample, search, serve
from jobs.terminal import display

app = typer.Typer(
    name="mats",
    help="Captions, labels and answers for archives of sound.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for job in (
    archive,
    search,
    serve,
    export,
    sample,
    text,
    train,
    ask,
    import_reference,
    evaluate,
    demo,
    doctor,
    submit,
):  # the order of --help
    app.add_typer(job.app)
app.add_typer(soundworld.app, name="soundworld")
app.add_typer(evaluate.history, name="history")
app.add_typer(benchmarks.app, name="benchmark")


QUIET = {"-q", "--quiet"}
"""Taken before a command and behind it."""


def _version(asked: bool) -> None:
    if asked:
        from mats_core import __version__

        typer.echo(f"mats {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show which mats this is."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress: only results, warnings and errors."),
) -> None:
    """Captions, labels and answers for archives of sound."""
    display.quiet = quiet


@app.command("help")
def show_help(
    ctx: typer.Context, names: list[str] | None = typer.Argument(None, metavar="COMMAND", help="What to explain.")
) -> None:
    """Explain a command, as its --help does."""
    assert ctx.parent is not None
    ctx.parent.command.main([*(names or ()), "--help"], "mats")


def main() -> None:
    """`mats`, once its commands are imported."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    words = sys.argv[1:]
    if words[:1] != ["submit"]:  # whose words are another command's
        words = [*(["-q"] if QUIET.intersection(words) else []), *(word for word in words if word not in QUIET)]
    app(words)
