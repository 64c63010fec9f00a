"""`mats ask`: a few files, here and now, without Ray; the model is loaded once."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from jobs.terminal.commands import command
from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.prompts import validate_request

if TYPE_CHECKING:
    from mats_core.model.asking import Clip
    from mats_core.model.model import MatsModel


app = typer.Typer()


@dataclass(frozen=True)
class AskOptions:
    """The options of `mats ask`."""

    task: str = "caption"
    question: str | None = None
    tag: str | None = None
    model: str = "builtin"
    segments: bool = False
    device: str = "auto"
    trust_remote_code: bool = False
    interactive: bool = False
    as_json: bool = False


@command(app, "ask")
def ask(
    files: list[str] = typer.Argument(..., help="Sound files (paths or URLs)."),
    task: str = typer.Option("caption", help="caption, cla_label, music_caption or QA."),
    question: str | None = typer.Option(None, help="The question of task QA."),
    tag: str | None = typer.Option(None, help="Tag put into the prompt (default: the model's)."),
    interactive: bool = typer.Option(
        False, "--interactive", "-i", help="Read questions about one FILE, a line each, until end of input."
    ),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    segments: bool = typer.Option(False, "--segments", help="Answer every window too, with its times."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run Python files of the LLM's own."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a file, or a question."),
) -> int:
    """Answer a few files right here, without Ray."""
    asked = AskOptions(task, question, tag, model, segments, device, trust_remote_code, interactive, as_json)
    return ask_files(files, asked)


def ask_files(files: list[str], asked: AskOptions) -> int:
    """Print one answer a chunk of every file; 1 when a file could not be answered. Raises SettingsError."""
    from mats_core.model.directory import check_model_dir, resolve
    from mats_core.model.facts import check_weights

    config = check_model_dir(asked.model)
    if config.encoder is None:
        problem = f'"{asked.model}" has no encoder and answers embeddings only'
        raise SettingsError("model", problem, "choose a model with an encoder")
    if asked.interactive:
        if sys.stdin is None:
            raise SettingsError("interactive", "standard input is closed", "open one to read questions from")
        if len(files) != 1:
            raise SettingsError("FILE", f"--interactive was given {len(files)} files", "give one file")
        if asked.question is not None:
            remedy = "leave out either --question or --interactive"
            raise SettingsError("question", "--interactive reads the questions itself", remedy)
        validate_request("caption", None, tag=asked.tag)
    else:
        validate_request(asked.task, asked.question, tuple(config.tasks), asked.tag)
    for file in files:
        if storage.is_dir(file):
            problem = f'"{storage.public_uri(file)}" is a folder'
            raise SettingsError("FILE", problem, "give files; for folders there is `mats caption`")
    check_weights(resolve(asked.model), config)
    from mats_core import load_model
    from mats_core.audio.decode import AudioError
    from mats_core.model.asking import embed_sound

    model = load_model(asked.model, device=asked.device, trust_remote_code=asked.trust_remote_code)
    code = 0
    for file in files:
        try:
            clips = embed_sound(model, file)
        except AudioError as error:
            code, uri = 1, storage.public_uri(file)
            if asked.as_json:
                _print_json({"uri": uri, "error_code": error.code, "error_message": error.message})
            else:
                typer.echo(f"{uri}: {error.code}: {error.message}", err=True)
            continue
        if asked.interactive:
            _converse(model, file, clips, asked)
        else:
            _show(model, file, clips, asked, asked.task, asked.question, name=len(files) > 1)
    return code


def _print_json(told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told, ensure_ascii=False))


def _converse(model: MatsModel, file: str, clips: list[Clip], asked: AskOptions) -> None:
    """Answer questions about one file, a line each, until end of input."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a stray byte costs one letter, not the conversation
    prompting = sys.stdin.isatty()
    if prompting:
        typer.echo("Ask about the sound, a line a question; end with Ctrl-D.", err=True)
    while True:
        if prompting:
            typer.echo("> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        try:
            if line.strip():
                _show(model, file, clips, asked, "QA", line.strip(), False)
        except SettingsError as error:  # a question no prompt can hold; the next one may be better
            typer.echo(f"mats: {error}", err=True)


def _show(
    model: MatsModel, file: str, clips: list[Clip], asked: AskOptions, task: str, question: str | None, name: bool
) -> None:
    from mats_core.model.asking import Request, ask_about

    explain = asked.as_json and model.memory is not None
    found = ask_about(model, clips, Request(task, question, asked.tag), asked.segments, explain=explain)
    if asked.as_json:
        names = ("start_s", "duration_s", "decoded_s", "text", "neighbors", *(("segments",) if asked.segments else ()))
        whole = [asdict(answer) for answer in found]
        told = {
            "uri": storage.public_uri(file),
            "task": task,
            "question": question,
            "prompt": model.prompt(task, question, asked.tag),
            "model": asked.model,
            "model_fingerprint": model.fingerprint,
            "answers": [{name: answer[name] for name in names} for answer in whole],
        }
        _print_json(told)
        return
    for answer in found:
        before = f"{file}: " if name else ""
        at = f"[{answer.start_s:.0f} s] " if len(found) > 1 else ""
        typer.echo(f"{before}{at}{answer.text}")
        for part in answer.segments or []:
            typer.echo(f"  {part.start_s:7.2f}-{part.end_s:.2f} s  {part.text}")
