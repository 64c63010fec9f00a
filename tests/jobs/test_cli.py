"""All commands of `mats`, in the order of its --help."""

from __future__ import annotations

import typer.main
from typer.testing import CliRunner

from jobs.cli import app

COMMANDS = (
    "caption embed-audio scan compact embed-text build-memory train ask import-reference report evaluate compare demo "
    "doctor submit soundworld history benchmark"
)
GROUPS = {
    "soundworld": "build corpus ablate evaluate card clip",
    "history": "show accept reject pin",
    "benchmark": "caption evaluate scan train core memory embed-text scale",
}


def test_the_commands_and_their_order() -> None:
    group = typer.main.get_command(app)
    assert list(group.commands) == COMMANDS.split()  # type: ignore[attr-defined]
    for name, inside in GROUPS.items():
        assert list(group.commands[name].commands) == inside.split()  # type: ignore[attr-defined]


def test_every_command_explains_itself() -> None:
    run = CliRunner(env={"COLUMNS": "200"}).invoke
    every = [(name,) for name in COMMANDS.split()] + [
        (g, name) for g, names in GROUPS.items() for name in names.split()
    ]
    for words in every:
        done = run(app, [*words, "--help"])
        assert done.exit_code == 0, words
        assert f"Usage: mats {' '.join(words)}" in done.output
        assert len(done.output.splitlines()[3].strip(" │")) > 20, words  # the sentence that says what it does
