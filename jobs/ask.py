"""`mats ask`: a few files, here and now, without Ray."""

from __future__ import annotations

import json

import typer

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.prompts import validate_request


def ask_files(
    files: list[str],
    task: str,
    question: str | None,
    tag: str | None,
    model: str,
    segments: bool,
    device: str,
    as_json: bool,
) -> int:
    """Print one answer a chunk of every file; 1 when a file could not be answered. Raises SettingsError."""
    from mats_core.audio import AudioError
    from mats_core.checkpoint import check_model_dir

    config = check_model_dir(model)
    validate_request(task, question, tuple(config.tasks))
    for file in files:
        if storage.is_dir(file):
            raise SettingsError("FILE", file, "a file; for folders there is `mats caption`")
    from mats_core import load_model

    loaded = load_model(model, device=device)
    failed = False
    for file in files:
        try:
            answers = loaded.answers(file, task=task, question=question, tag=tag, segments=segments)
        except AudioError as error:
            failed = True
            shown = {
                "uri": storage.public_uri(file),
                "error_code": error.code,
                "error_message": error.message,
            }
            if as_json:
                typer.echo(json.dumps(shown, ensure_ascii=False))
            else:
                typer.echo(f"{file}: {error.code}: {error.message}", err=True)
            continue
        if as_json:
            rows = [
                {
                    "start_s": answer.start_s,
                    "duration_s": answer.duration_s,
                    "text": answer.text,
                    **({"segments": [_plain(each) for each in answer.segments]} if segments else {}),
                }
                for answer in answers
            ]
            typer.echo(json.dumps({"uri": storage.public_uri(file), "task": task, "answers": rows}, ensure_ascii=False))
            continue
        for answer in answers:
            name = f"{file}: " if len(files) > 1 else ""
            at = f"[{answer.start_s:.0f} s] " if len(answers) > 1 else ""
            typer.echo(f"{name}{at}{answer.text}")
            for each in answer.segments or []:
                part = _plain(each)
                typer.echo(f"  {part['start_s']:7.2f}-{part['end_s']:.2f} s  {part['text']}")
    return 1 if failed else 0


def _plain(segment: object) -> dict[str, object]:
    if isinstance(segment, dict):
        return segment
    return {name: getattr(segment, name) for name in ("start_s", "end_s", "text")}
