"""`mats`: the commands of all jobs. A command imports Ray, torch and the pipelines when it runs."""

from __future__ import annotations

import sys

import typer

from jobs import archive, ask, corpus, demo, doctor, evaluate, import_reference, soundworld, submit, text, train
from jobs.benchmarks import commands as benchmarks

app = typer.Typer(
    name="mats",
    help="Captions, labels and answers for archives of sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for job in (archive, corpus, text, train, ask, import_reference, evaluate, demo, doctor, submit):  # the order of --help
    app.add_typer(job.app)
app.add_typer(soundworld.app, name="soundworld")
app.add_typer(evaluate.history, name="history")
app.add_typer(benchmarks.app, name="benchmark")


def main() -> None:
    """`mats`, once its commands are imported."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    app()
