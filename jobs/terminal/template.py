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


def _lines(kind: type[BaseModel], pad: str, stands: bool, item: bool = False) -> Iterator[str]:
    """The lines of a model; item: it is one of a list, whose dash stands before the first setting."""
    fields = list(kind.model_fields.items())
    if item:  # note: the dash must stand where the item does, and so a setting that must be given carries it
        fields.sort(key=lambda each: not each[1].is_required())
    for at, (name, field) in enumerate(fields):
        key = name.rstrip("_")
        for line in textwrap.wrap(_told(field), WIDTH - len(pad)):
            yield f"##{pad} {line}"
        first = item and at == 0
        given = stands and (field.is_required() or first)
        begin = f"{'' if given else '#'}{pad[:-2] + '- ' if first else pad}{key}:"
        inner, several = _model(field.annotation)
        if inner is None:
            yield f"{begin} {_shown(field)}"
            continue
        yield begin
        yield from _lines(inner, pad + ("    " if several else "  "), given, several)


def _told(field: FieldInfo) -> str:
    """The description, and what may be chosen where it does not say so."""
    choices = ['""' if each == "" else str(each).lower() if isinstance(each, bool) else str(each)
               for each in _choices(field.annotation)]  # fmt: skip
    told = field.description or ""
    if all(each in told for each in choices):
        return told
    kinds = get_args(field.annotation)
    other = get_origin(field.annotation) is not Literal and any(
        each is not type(None) and not _choices(each) for each in kinds
    )
    words = [*(["or"] if other else []), *(["one of"] if len(choices) > 1 else [] if other else ["only"])]
    more = " ".join([*words, ", ".join(choices)])
    if told and not told.endswith("."):
        return f"{told}; {more}"
    return f"{told} {more[0].upper()}{more[1:]}.".strip()


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
