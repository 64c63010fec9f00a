"""`mats ask`: a few files, here and now, without Ray; the model is loaded once."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.terminal.commands import command
from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.prompts import task_name, validate_request
from mats_core.packages import import_transformers
from mats_core.soundworld.doubts import doubt
from pipelines.settings.base import ALLOW_PARTS, ENCODER_DTYPE, LLM_DTYPE, MAPPER_DTYPE, NumberTypes, build

if TYPE_CHECKING:
    from mats_core.model.asking import Request
    from mats_core.model.hearing.clips import Clip
    from mats_core.model.model import MatsModel


app = typer.Typer()
_ENDING = re.compile(r"\.\w+$")


@command(app, "ask")
def ask(
    files: list[str] = typer.Argument(
        ...,
        metavar="FILE",
        help='Sound files (paths or URLs), and behind them a question if you like: "Is there rain?"',
    ),
    task: str = typer.Option("caption", help="caption, cla_label, music_caption or QA."),
    question: str | None = typer.Option(None, help="The question of task QA."),
    tag: str | None = typer.Option(None, help="Tag put into the prompt (default: the model's)."),
    interactive: bool = typer.Option(
        False, "--interactive", "-i", help="Read questions about one FILE, a line each, until end of input."
    ),
    model: str = typer.Option("builtin", help='Model directory, or "builtin".'),
    per: str = typer.Option("minute", help="An answer a minute, one a file, or one a window."),
    segments: bool = typer.Option(False, "--segments", help="Answer every window too, with its times."),
    device: str = typer.Option("auto", help="auto, cpu, cuda."),
    llm_dtype: str = typer.Option("auto", help=LLM_DTYPE),
    mapper_dtype: str = typer.Option("float32", help=MAPPER_DTYPE),
    encoder_dtype: str = typer.Option("float32", help=ENCODER_DTYPE),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code", help="Run Python files of the LLM's own."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a file, or a question."),
    score: bool = typer.Option(True, help="With --json, tell how sure every answer is."),
    allow_parts: Annotated[list[str] | None, typer.Option(help=ALLOW_PARTS)] = None,
) -> int:
    """Answer a few files right here, without Ray."""
    from mats_core.confidence.calibration import NONE, read_calibration
    from mats_core.model.directory import check_model_dir, resolve
    from mats_core.model.facts import check_weights, threads_worth, weight_bytes
    from mats_core.model.hearing.grouping import PER

    task = task_name(task)
    if question is None and not interactive and is_question(files):
        *files, question = files
        task = "QA"
    words = trailing_words(files)
    if question is not None and words and " " in words[-1]:
        remedy = "ask one question at a time, or a line each with --interactive"
        raise SettingsError("FILE", f'there is no file "{words[-1]}"', remedy)
    if len(words) > 1:
        told = ", ".join(f'"{word}"' for word in words)
        quoted = '"' + " ".join(words).replace('"', "'") + '"'
        raise SettingsError("FILE", f"there are no files {told}", f"put a question in quotes: {quoted}")

    chosen = {"llm_dtype": llm_dtype, "mapper_dtype": mapper_dtype, "encoder_dtype": encoder_dtype}
    types = build(NumberTypes, chosen)
    config = check_model_dir(model, allow_parts or ())
    if config.encoder is None:
        problem = f'"{model}" has no encoder and answers embeddings only'
        raise SettingsError("model", problem, "choose a model with an encoder")
    if interactive:
        if sys.stdin is None:
            raise SettingsError("interactive", "standard input is closed", "open one to read questions from")
        if len(files) != 1:
            raise SettingsError("FILE", f"--interactive was given {len(files)} files", "give one file")
        if question is not None:
            remedy = "leave out either --question or --interactive"
            raise SettingsError("question", "--interactive reads the questions itself", remedy)
        validate_request("caption", None, tag=tag)
    else:
        validate_request(task, question, tuple(config.tasks), tag)
        if question is not None and (warning := doubt(model, question)):
            typer.echo(f"mats: {warning}", err=True)
    if per not in PER:
        raise SettingsError("per", f'there is no answer per "{per}"', f"choose {', '.join(PER)}")
    for file in files:
        if storage.is_dir(file):
            problem = f'"{storage.public_uri(file)}" is a folder'
            raise SettingsError("FILE", problem, "give files; for folders there is `mats caption`")
    check_weights(resolve(model), config, trust_remote_code)
    from mats_core.audio.sandbox import warm_decoder

    warm_decoder().start()  # imports what it needs while this process does
    import torch

    torch.set_num_threads(threads_worth(weight_bytes(resolve(model), config), torch.get_num_threads()))
    import_transformers()
    from mats_core import load_model
    from mats_core.audio.file import AudioError
    from mats_core.model.asking import Request
    from mats_core.model.hearing.clips import embed_sound
    from mats_core.model.hearing.grouping import regrouped

    loaded = load_model(
        model, device, types.llm_dtype, encoder_dtype=types.encoder_dtype, mapper_dtype=types.mapper_dtype,
        trust_remote_code=trust_remote_code, allow_parts=allow_parts or (),
    )  # fmt: skip
    if as_json and score and loaded.calibration is None:
        _, why = read_calibration(resolve(model), loaded.fingerprint)
        if why != NONE:
            typer.echo(f"mats: answers have no confidence: {why}", err=True)
    show = partial(_show, loaded, model=model, segments=segments, as_json=as_json, score=score, many=len(files) > 1)
    code = 0
    for file in files:
        try:
            clips = regrouped(embed_sound(loaded, file), per)
        except AudioError as error:
            code, uri = 1, storage.public_uri(file)
            if as_json:
                _print_json({"uri": uri, "error_code": error.code, "error_message": error.message})
            else:
                typer.echo(f"{uri}: {error.code}: {error.message}", err=True)
            continue
        if interactive:
            _converse(partial(show, file, clips), tag, model)
        else:
            show(file, clips, Request(task, question, tag))
    return code


def is_question(files: list[str]) -> bool:
    """Whether the last of some files is none, but a question about the others."""
    last = files[-1]
    return len(files) > 1 and " " in last.strip() and "://" not in last and not storage.exists(last)


def trailing_words(files: list[str]) -> list[str]:
    """What stands behind the first file and is neither a file nor written like one: words that a shell has split."""
    words: list[str] = []
    for each in reversed(files[1:]):
        if "/" in each or _ENDING.search(each) or storage.exists(each):
            break
        words.insert(0, each)
    return words


def _print_json(told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told, ensure_ascii=False))


def _converse(answer: Callable[[Request], None], tag: str | None, model: str) -> None:
    """Answer questions about one file, a line each, until end of input."""
    warned = False
    from mats_core.model.asking import Request

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
                if not warned and (warning := doubt(model, line)):
                    typer.echo(f"mats: {warning}", err=True)
                    warned = True
                answer(Request("QA", line.strip(), tag))
        except SettingsError as error:  # a question no prompt can hold; the next one may be better
            typer.echo(f"mats: {error}", err=True)


def _show(
    loaded: MatsModel,
    file: str,
    clips: list[Clip],
    request: Request,
    model: str,
    segments: bool,
    as_json: bool,
    score: bool,
    many: bool,
) -> None:
    from mats_core.model.asking import as_heard, ask_about

    explain = as_json and loaded.memory is not None
    found = ask_about(loaded, clips, request, segments, explain=explain, score=as_json and score)
    if as_json:
        heard = ("start_s", "duration_s", "decoded_s", "complete", "lost_s")
        sure = ("logprob", "clap_score", "confidence") if score else ()
        names = (*heard, "text", *sure, "neighbors", *(("segments",) if segments else ()))
        whole = [asdict(answer) for answer in found]
        told = {
            "uri": storage.public_uri(file),
            "task": request.task,
            "question": request.question,
            "prompt": loaded.prompt(request.task, request.question, as_heard(loaded, clips[0], request).tag),
            "model": model,
            "model_fingerprint": loaded.fingerprint,
            "number_types": loaded.number_types,
            "answers": [{name: answer[name] for name in names} for answer in whole],
        }
        _print_json(told)
        return
    for answer in found:
        before = f"{file}: " if many else ""
        at = f"[{answer.start_s:.0f} s] " if len(found) > 1 else ""
        typer.echo(f"{before}{at}{answer.text}")
        for part in answer.segments or []:
            typer.echo(f"  {part.start_s:7.2f}-{part.end_s:.2f} s  {part.text}")
