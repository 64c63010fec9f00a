"""Command-line options out of a settings model: a field's description is its --help text."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mats_core.errors import SettingsError, got_allowed
from mats_core.storage.uris import redacted
from pipelines.settings.base import build

EXIT_WRONG_SETTINGS = 2
EXIT_TOO_MANY_ERRORS = 3
EXIT_INTERRUPTED = 130

Settings = TypeVar("Settings", bound=BaseModel)


def settings_command(
    app: typer.Typer, name: str, kind: type[Settings], arguments: tuple[str, ...] = ("input", "output")
) -> Callable[[Callable[[Settings], int]], Callable[[Settings], int]]:
    """Register `run(settings) -> exit code` as a command whose options are the fields of `kind`.

    --config FILE gives defaults in YAML; what is typed goes over it.
    """

    def register(run: Callable[[Settings], int]) -> Callable[[Settings], int]:
        def command(**given: Any) -> None:
            def body() -> int:
                config = given.pop("config")
                values = {} if config is None else _read_config(config)
                # note: an option that may come several times is an empty list when it does not
                values.update({key: value for key, value in given.items() if value is not None and value != []})
                for argument in arguments:
                    if argument not in values and kind.model_fields[argument].is_required():
                        raise got_allowed(argument.upper(), "nothing", kind.model_fields[argument].description or "")
                return run(build(kind, values))

            raise typer.Exit(guarded(body))

        command.__doc__ = run.__doc__
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [_parameter(field_name, field, field_name in arguments) for field_name, field in _ordered(kind, arguments)]
            + [
                inspect.Parameter(
                    "config",
                    inspect.Parameter.KEYWORD_ONLY,
                    default=typer.Option(None, "--config", help="YAML with any of these settings.", metavar="FILE"),
                    annotation=str | None,
                )
            ]
        )
        app.command(name)(command)
        return run

    return register


def _ordered(kind: type[BaseModel], arguments: tuple[str, ...]) -> list[tuple[str, FieldInfo]]:
    """Arguments first, then what is the command's own, then what it shares, limits last."""
    classes = [each for each in kind.__mro__ if "__annotations__" in vars(each)]

    def rank(name: str) -> tuple[int, int]:
        if name in arguments:
            return -1, arguments.index(name)
        return next(i for i, each in enumerate(classes) if name in vars(each)["__annotations__"]), 0

    return sorted(kind.model_fields.items(), key=lambda item: rank(item[0]))


def _parameter(name: str, field: FieldInfo, positional: bool) -> inspect.Parameter:
    annotation: Any = _typed(field.annotation)
    text = field.description or ""
    if positional:
        default: Any = typer.Argument(None, help=text, show_default=False)
    else:
        flag = "--" + name.rstrip("_").replace("_", "-")  # note: list_, since `list` is a type where it stands
        shown = None if field.default in (None, False) or field.default_factory else str(field.default)
        default = typer.Option(None, flag, help=text + (f" (default: {shown})" if shown else ""), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typed(annotation: Any) -> Any:
    """What typer is to make of a field: a list for a list or a mapping (name=value, several times), else one value."""
    several = (list, dict, tuple)
    if get_origin(annotation) in several:
        return list[str] | None
    kinds = [each for each in (get_args(annotation) or (annotation,)) if each is not type(None)]
    if get_origin(kinds[0]) in several:
        return list[str] | None
    return (kinds[0] if isinstance(kinds[0], type) else str) | None


def _read_config(path: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # note: YAML's dates may be none
        raise got_allowed("config", path, f"a readable YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise got_allowed("config", path, "a YAML file of `setting: value` lines")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def guarded(body: Callable[[], int]) -> int:
    """Run a command's body; errors become one clear line and the exit code of DESIGN.md."""
    try:
        code = body()
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk shows here, and not after the exit code is settled
        return code
    except SettingsError as error:
        return _say(str(error), EXIT_WRONG_SETTINGS)
    except KeyboardInterrupt:
        return _say("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if os.environ.get("MATS_DEBUG"):
            print(redacted(traceback.format_exc()), file=sys.stderr)
        first = next(iter(str(error).strip().splitlines()), "")
        return _say(f"{type(error).__name__}: {first} (MATS_DEBUG=1 shows where)", 1)


def _say(message: str, code: int) -> int:
    print(f"mats: {redacted(message)}", file=sys.stderr)  # a library's message may hold a signed URL
    return code


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a function with typer's own parameters that returns an exit code."""

    def register(run: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(run)
        def wrapped(*args: Any, **given: Any) -> None:
            raise typer.Exit(guarded(lambda: run(*args, **given)))

        app.command(name)(wrapped)
        return run

    return register
