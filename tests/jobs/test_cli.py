"""All commands of `mats`, in the order of its --help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import jobs.cli
import mats_core
from jobs.cli import app
from jobs.terminal import display

COMMANDS = (
    "help caption embed-audio scan compact search serve export sample corpus embed-text build-memory "
    "noise train adapt ask import-reference report calibrate evaluate compare demo doctor submit "
    "soundworld history benchmark"
)
GROUPS = {
    "soundworld": "build corpus ablate noise adapt calibrate evaluate rerank probe silence card clip",
    "history": "show accept reject pin",
    "benchmark": "caption evaluate score scan train core gpu generate memory search serve embed-text scale",
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
        assert "default: )" not in done.output and "default: ]" not in done.output, words
        assert len(done.output.splitlines()[3].strip(" │")) > 20, words  # the sentence that says what it does


def test_arguments_are_shown_as_required_where_they_are() -> None:
    for name, usage in (("caption", "{INPUT} {OUTPUT}"), ("export", "{RUN} [OUTPUT]"), ("search", "{RUN} [QUERY]")):
        shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, [name, "--help"]).output
        assert f" {name} [OPTIONS] {usage}" in shown


def test_help_is_asked_for_in_every_way() -> None:
    run = CliRunner(env={"COLUMNS": "200"}).invoke
    texts = {run(app, words).output for words in (["scan", "--help"], ["scan", "-h"], ["help", "scan"])}
    assert len({text.replace(" root ", " mats ") for text in texts}) == 1
    assert "Did you mean 'scan'" in run(app, ["help", "scann"]).output
    assert run(app, ["--version"]).output == f"mats {mats_core.__version__}\n"
    assert "INPUT" in texts.pop()


@pytest.mark.parametrize(
    ("typed", "quiet"),
    [
        ("-q train --settings", True),
        ("train --settings", False),
        ("train --settings -q", True),
        ("train --quiet --settings", True),
    ],
)
def test_quiet_may_stand_before_a_command_and_behind_it(
    typed: str, quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "quiet", False)
    monkeypatch.setattr(sys, "argv", ["mats", *typed.split()])
    with pytest.raises(SystemExit) as end:
        jobs.cli.main()
    assert (end.value.code or 0) == 0
    assert display.quiet == quiet
    assert "warmup_steps" in capsys.readouterr().out


def test_quiet_says_nothing_of_work_that_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "quiet", False)
    for words, said in (([], "reading: 1 of 2\n"), (["-q"], ""), (["--quiet"], "")):
        CliRunner().invoke(app, [*words, "help"])
        with display.Display("reading") as shown:
            shown.show("reading", 1, 2, "1 of 2")
        assert capsys.readouterr().err == said


ROOT = Path(__file__).parents[2]
LOST = "mats: standard output cannot be written ({}); what a run put into its OUTPUT is there\n"


def shell(command: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a shell's command; `mats` in it is ours."""
    done = subprocess.run(
        ["bash", "-c", f"mats() {{ {sys.executable} -m jobs \"$@\"; }}\n{command}"], capture_output=True, text=True,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("mats --help > /dev/full", (1, "", LOST.format("No space left on device"))),
        ("mats --help >&-", (1, "", LOST.format("Bad file descriptor"))),
        ("mats caption > /dev/full 2> /dev/full", (2, "", "")),
    ],
)
def test_an_output_that_takes_nothing_is_named(tmp_path: Path, command: str, expected: tuple[int, str, str]) -> None:
    assert shell(command, tmp_path) == expected


@pytest.mark.processes
def test_what_is_said_never_enters_a_file_or_standard_output_where_a_stream_is_closed(tmp_path: Path) -> None:
    program = "from jobs.start import open_streams; open_streams(); import sys; print('said', file=sys.stderr)"
    code = f"file = open('written', 'w'); {program}; file.write('rows'); print('out')"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}; {code}" 0<&- 2>&-'], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert (done.stdout, (tmp_path / "written").read_text()) == ("out\n", "rows")


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_commands_are_imported_ends_it_as_later(number: int) -> None:
    slow = "import time; from jobs.start import main\n"
    waits = "import builtins; real = builtins.__import__\ndef wait(name, *a, **k):\n"
    waits += "    if name == 'jobs.cli':\n        print('there', flush=True); time.sleep(60)\n"
    waits += "    return real(name, *a, **k)\nbuiltins.__import__ = wait\nmain()"
    process = subprocess.Popen([sys.executable, "-c", slow + waits], stdout=-1, stderr=-1, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    process.send_signal(number)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("mats: interrupted\n", 130)


@pytest.mark.processes
def test_nohup_stays(tmp_path: Path) -> None:
    program = "import os, signal; from jobs.start import main; import jobs.cli; "
    program += "jobs.cli.main = lambda: (os.kill(os.getpid(), signal.SIGHUP), print('stayed')); main()"
    assert shell(f'nohup {sys.executable} -c "{program}" 2> /dev/null', tmp_path)[:2] == (0, "stayed\n")
