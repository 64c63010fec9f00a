"""A settings model as a command: options, YAML, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from jobs.options import guarded, settings_command
from jobs.terminal import duration
from mats_core.errors import SettingsError


class Settings(BaseModel):
    """Three settings."""

    input: str = Field(description="Where from.")
    batch_size: int | None = Field(None, gt=0, description="Rows at once.")
    task: str = Field("caption", description="What to do.")


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()

    @settings_command(made, "run", Settings, ("input",))
    def run(settings: Settings) -> int:
        """Do it."""
        typer.echo(f"{settings.input} {settings.batch_size} {settings.task}")
        return 3

    made.command("other")(lambda: None)  # a second command, so that names are needed
    return made


def test_what_is_typed_goes_over_yaml_and_yaml_over_defaults(app: typer.Typer, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("input: a\nbatch-size: 5\ntask: QA\n")
    run = CliRunner().invoke
    assert run(app, ["run", "x"]).output == "x None caption\n"
    assert run(app, ["run", "--config", str(config)]).output == "a 5 QA\n"
    done = run(app, ["run", "x", "--batch-size", "7", "--config", str(config)])
    assert (done.output, done.exit_code) == ("x 7 QA\n", 3)


def test_help_is_the_fields_descriptions(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["run", "--help"]).output
    assert "Rows at once." in text
    assert "What to do. (default: caption)" in " ".join(text.replace("│", " ").split())


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("task", "sing", "caption"), 2, 'mats: task: got "sing"; allowed: caption\n'),
        (KeyboardInterrupt(), 130, "mats: interrupted\n"),
        (RuntimeError("no luck\nat all"), 1, "mats: RuntimeError: no luck (MATS_DEBUG=1 shows where)\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MATS_DEBUG", raising=False)
    assert guarded(lambda: raising(error)) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (190, "3 min 10 s"), (19200, "5 h 20 min")])
def test_a_length_of_time_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
