"""A settings model as a command: options, YAML, what is missing or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from jobs.terminal.options import settings_command
from mats_core.errors import SettingsError
from pipelines.settings.base import build


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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"aws_secret_access_key": "TOPSECRET"}, "aws_secret_access_key: there is no such setting"),
        (
            {"colour": "TOPSECRET"},
            "colour: there is no such setting",
        ),  # nobody knows what it was meant to be
        ({"token": ["TOPSECRET"]}, "token: the value (which is not shown) is no whole number"),
        (
            {"batch_size": "https://host/a?X-Amz-Signature=TOPSECRET"},
            'batch_size: "https://host/a" is no whole',
        ),
        ({"batch_size": {"password": "TOPSECRET"}}, "batch_size: a mapping of password is no whole number"),
        ({"input": None}, "input: null is no text; give text"),
    ],
)
def test_a_wrong_setting_is_named_and_its_secret_is_not_told(values: dict[str, object], said: str) -> None:
    class Known(Settings):
        model_config = ConfigDict(extra="forbid")
        token: int = 0

    with pytest.raises(SettingsError) as caught:
        build(Known, {"input": "a", **values})
    assert said in str(caught.value)
    assert "TOPSECRET" not in str(caught.value)


def test_a_missing_setting_does_not_show_the_others() -> None:
    with pytest.raises(SettingsError, match="input: nothing is given; give a value"):
        build(Settings, {"task": "TOPSECRET"})


@pytest.mark.parametrize("text", ["day: 2026-02-30", "a: [", "- 1", b"\xff"])
def test_a_configuration_that_cannot_be_read_is_a_wrong_setting(
    app: typer.Typer, tmp_path: Path, text: str | bytes
) -> None:
    (tmp_path / "run.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    for path in (str(tmp_path / "run.yaml"), ""):
        assert CliRunner().invoke(app, ["run", "in", "--config", path]).exit_code == 2
