"""A job is called with its settings, or with what they are made of: `run_caption(input="sounds/", output="out/")`."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Concatenate, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin, overload

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mats_core.errors import SettingsError
from mats_core.storage.uris import Uri
from pipelines.settings.base import build, without_paths

Fields = ParamSpec("Fields")
Others = ParamSpec("Others")
Kind = TypeVar("Kind", bound=BaseModel)
KindIn = TypeVar("KindIn", bound=BaseModel, contravariant=True)
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


PLACES = frozenset(
    ("input", "output", "out", "model", "encoder", "llm", "memory", "embeddings", "pairs", "data", "history", "suite",
     "data_cache", "run", "runs", "answers", "reference", "page", "judge")
)  # fmt: skip
"""Settings that name a place, which may be a `pathlib.Path`."""


class Called(Protocol[Fields, Others, KindIn, ResultOut]):
    """A job: by its settings and what else it takes (`progress`), or by the settings' own names."""

    @overload
    def __call__(self, settings: KindIn, *others: Others.args, **named: Others.kwargs) -> ResultOut: ...
    @overload
    def __call__(self, *none: Fields.args, **values: Fields.kwargs) -> ResultOut: ...


def by_name(
    kind: Callable[Fields, Kind],
) -> Callable[[Callable[Concatenate[Kind, Others], Result]], Called[Fields, Others, Kind, Result]]:
    """Let `run(settings, …)` be called with the settings' names as well; its signature and its help list them all.

    kind: the settings' class. A wrong value raises SettingsError, as on the command line.
    """
    assert isinstance(kind, type) and issubclass(kind, BaseModel)
    fields = {name: kind.model_fields[name] for name in _ordered(kind)}

    def register(run: Callable[Concatenate[Kind, Others], Result]) -> Called[Fields, Others, Kind, Result]:
        settings, *others = inspect.signature(run).parameters.values()

        @functools.wraps(run)
        def called(*given: Any, **named: Any) -> Result:
            if given and not isinstance(given[0], kind):
                example = ", ".join(f"{name}=…" for name, field in fields.items() if field.is_required()) or "…"
                problem = f"{run.__name__} was given a {type(given[0]).__name__}"
                remedy = f"give {kind.__name__}, or settings by their names: {run.__name__}({example})"
                raise SettingsError("settings", problem, remedy)
            if given or settings.name in named:
                return run(*given, **named)
            beside = {each.name: named.pop(each.name) for each in others if each.name in named}
            return run(build(kind, without_paths(named)), **beside)  # type: ignore

        shown = [settings.replace(default=None, annotation=f"{settings.annotation} | None"), *others]
        shown += [_parameter(name, field) for name, field in fields.items()]
        result = inspect.signature(run).return_annotation
        called.__signature__ = inspect.Signature(shown, return_annotation=result)  # type: ignore[attr-defined]
        told = "\n".join(f"- `{name}`: {field.description or 'see its class.'}" for name, field in fields.items())
        called.__doc__ = f"{inspect.getdoc(run)}\n\nSettings, as an object or by their names:\n\n{told}\n"
        return called

    return register


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = field.annotation
    if name in PLACES and kind in (str, str | None):
        kind = Uri if kind is str else Uri | None
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_plain(kind))


def _ordered(kind: type[BaseModel]) -> list[str]:
    """The settings' names as `--help` has them: what must be given, then what GROUPS names, then the others."""
    must = [name for name, field in kind.model_fields.items() if field.is_required()]
    named = [name for names in getattr(kind, "GROUPS", {}).values() for name in names]
    return [name for name in dict.fromkeys((*must, *named, *kind.model_fields)) if name in kind.model_fields]


def _plain(kind: Any) -> Any:
    """A type without what checks its values: list[Annotated[str, …]] | None is list[str] | None."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_plain, get_args(kind)))
    return list[_plain(get_args(kind)[0])] if get_origin(kind) is list else kind  # type: ignore[misc]
