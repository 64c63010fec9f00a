"""How a command ends: one line and its exit code."""

from __future__ import annotations

import errno
import io
import os

import pytest
import typer
from typer.testing import CliRunner

from jobs.terminal.commands import command, guarded
from mats_core.errors import SettingsError
from mats_core.storage import error_from


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            SettingsError("task", "there is no task sing", "say caption"),
            2,
            "mats: task: there is no task sing; say caption\n",
        ),
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_without_the_names_of_errors(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As a store says it, and as the system does where something else writes."""
    raw = OSError(number, os.strerror(number), "/small/file")
    for error in (error_from(OSError(number, "x"), "/small/file"), raw):
        assert guarded(lambda error=error: raising(error)) == 1  # type: ignore[misc]
        told = capsys.readouterr().err
        assert told.startswith(f"mats: /small/file cannot be written: {os.strerror(number)}; ")
        assert told.endswith("is full: make room (df -h and df -i show what is left there), or choose another place\n")


def test_output_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    assert guarded(lambda: 0) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_a_registered_command_ends_with_the_code_it_returns() -> None:
    app = typer.Typer()

    @command(app, "three")
    def three(name: str = typer.Argument(...)) -> int:
        """Three."""
        typer.echo(name)
        return 3

    @command(app, "wrong")
    def wrong() -> int:
        """Wrong."""
        raise SettingsError("name", "it is wrong", "give another")

    done = CliRunner().invoke(app, ["three", "a"])
    assert (done.exit_code, done.output) == (3, "a\n")
    done = CliRunner().invoke(app, ["wrong"])
    assert (done.exit_code, done.stderr) == (2, "mats: name: it is wrong; give another\n")
    assert three("b") == 3  # from Python it is the function that it was
