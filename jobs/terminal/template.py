"""A commented YAML file of every setting that a model has: what is required stands, the rest waits behind a `#`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mats_core.errors import TO_BE_GIVEN

WIDTH = 110


def template(kind: type[BaseModel]) -> str:
    """The file: descriptions behind `##`, settings with their defaults behind `#`, those that must be given in full."""
    return "\n".join(_lines(kind, "", True)) + "\n"


def commented(kind: type[BaseModel]) -> str:
    """As `template`, of a model that goes below another setting, all of it behind `#`."""
    return "\n".join(_lines(kind, "  ", False)) + "\n"


def _lines(kind: type[BaseModel], pad: str, stands: bool) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        key = name.rstrip("_")
        for line in textwrap.wrap(_told(field), WIDTH - len(pad)):
            yield f"##{pad} {line}"
        given = stands and field.is_required()
        mark = "" if given else "#"
        inner, several = _model(field.annotation)
        if inner is None:
            yield f"{mark}{pad}{key}: {_shown(field)}"
            continue
        yield f"{mark}{pad}{key}:"
        if several:
            yield f"{mark}{pad}  -"
        yield from _lines(inner, pad + ("    " if several else "  "), given)


def _told(field: FieldInfo) -> str:
    choices = [str(each) for each in _choices(field.annotation)]
    told = field.description or ""
    missing = [each for each in choices if each not in told]
    return " ".join(filter(None, [told, f"One of {', '.join(choices)}." if missing else ""]))


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for each in get_args(annotation) for choice in _choices(each))


def _model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a setting holds, and whether it holds a list of them."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, False
    several = get_origin(annotation) is list
    if get_origin(annotation) is dict:
        return None, False
    for each in get_args(annotation):
        found, many = _model(each)
        if found is not None:
            return found, several or many
    return None, False


def _shown(field: FieldInfo) -> str:
    if field.is_required():
        return TO_BE_GIVEN
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "null"
    value = list(default) if isinstance(default, tuple) else default
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
