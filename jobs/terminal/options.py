"""Command-line options out of a settings model: a field's description is its --help text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from jobs.terminal.commands import guarded
from mats_core.errors import SettingsError, first_line
from pipelines.settings.base import build

Settings = TypeVar("Settings", bound=BaseModel)


class _Command(TyperCommand):
    """A command whose `needed` arguments are shown as required, though a file of settings may give them too."""

    needed: frozenset[str] = frozenset()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            parameter.required = parameter.required or parameter.name in self.needed
        super().format_help(ctx, formatter)


def settings_command(
    app: typer.Typer,
    name: str,
    kind: type[Settings],
    arguments: tuple[str, ...] = ("input", "output"),
    otherwise: str = "",
) -> Callable[[Callable[[Settings], int]], Callable[[Settings], int]]:
    """Register `run(settings) -> exit code` as a command whose options are the fields of `kind`, below its GROUPS.

    --config FILE gives defaults in YAML; what is typed goes over it. otherwise: what else to do than to give an
    argument that is missing.
    """

    def register(run: Callable[[Settings], int]) -> Callable[[Settings], int]:
        def command(**given: Any) -> None:
            def body() -> int:
                config = given.pop("config")
                values = {} if config is None else read_yaml("config", Path(config))
                values = {key.replace("-", "_"): value for key, value in values.items()}
                # note: an option that may come several times is an empty list when it does not
                values.update({key: value for key, value in given.items() if value is not None and value != []})
                for setting, field in _ordered(kind, arguments):
                    if setting not in values and field.is_required():
                        asked = setting.upper() if setting in arguments else f"--{setting}"
                        raise missing(asked, field, otherwise)
                return run(build(kind, values))

            raise typer.Exit(guarded(body))

        command.__doc__ = run.__doc__
        config = typer.Option(None, "--config", help="YAML with any of these settings.", metavar="FILE")
        headings = {name: heading for heading, names in _groups(kind).items() for name in names}
        options = [
            _parameter(field_name, field, field_name in arguments, headings.get(field_name))
            for field_name, field in _ordered(kind, arguments)
        ]
        last = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=config, annotation=str | None)
        command.__signature__ = inspect.Signature([*options, last])  # type: ignore[attr-defined]
        needed = frozenset(each for each in arguments if kind.model_fields[each].is_required())
        app.command(name, cls=type("Command", (_Command,), {"needed": needed}))(command)
        return run

    return register


def _groups(kind: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    return getattr(kind, "GROUPS", {})


def _ordered(kind: type[BaseModel], arguments: tuple[str, ...]) -> list[tuple[str, FieldInfo]]:
    """Arguments first, then what GROUPS names, then the command's own, then what it shares, limits last."""
    named = [*arguments, *(name for names in _groups(kind).values() for name in names)]
    classes = [each for each in kind.__mro__ if "__annotations__" in vars(each)]

    def rank(name: str) -> tuple[int, int]:
        if name in named:
            return -1, named.index(name)
        return next(i for i, each in enumerate(classes) if name in vars(each)["__annotations__"]), 0

    return sorted(kind.model_fields.items(), key=lambda item: rank(item[0]))


def _parameter(name: str, field: FieldInfo, positional: bool, heading: str | None) -> inspect.Parameter:
    annotation: Any = _typed(field.annotation)
    text = field.description or ""
    if positional:
        default: Any = typer.Argument(None, help=text, show_default=False, metavar=name.upper())
    else:
        flag = "--" + name.rstrip("_").replace("_", "-")  # note: list_, since `list` is a type where it stands
        flag += f"/--no-{flag[2:]}" if field.default is True else ""
        unsaid = field.is_required() or field.default_factory or field.default in (None, False, "")
        text += "" if unsaid else f" (default: {field.default})"
        default = typer.Option(None, flag, help=text, show_default=False, rich_help_panel=heading)
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


def missing(name: str, field: FieldInfo, otherwise: str = "") -> SettingsError:
    """The error for a setting that must be given and was not; its description says what is wanted."""
    description = (field.description or "").rstrip(".")
    remedy = f"give it: {description[:1].lower()}{description[1:]}"
    return SettingsError(name, "it is missing", f"{remedy}; {otherwise}" if otherwise else remedy)


def read_yaml(setting: str, path: Path) -> dict[str, Any]:
    """The settings of a YAML file. Raises SettingsError when it cannot be read, or holds anything but settings."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: bytes that are no text, 2026-02-30
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else first_line(error)  # type: ignore[union-attr]
        problem = f'"{path}" cannot be read as YAML ({where})'
        raise SettingsError(setting, problem, "correct the file, or name another one") from None
    if not isinstance(values, dict):
        raise SettingsError(setting, f'"{path}" holds no settings', "write a line `setting: value` for each")
    return {str(key): value for key, value in values.items()}
