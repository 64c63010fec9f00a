"""Errors a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class SettingsError(ValueError):
    """A setting or an input that cannot work, found before any work starts.

    The command line ends with exit code 2 on it. `setting` is the name the user knows, `problem` says what is wrong,
    `remedy` what to do about it: "output: another run is writing into it; wait until it has ended".
    """

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        self.setting, self.problem, self.remedy = setting, problem, remedy
        super().__init__(f"{setting}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str, str]]:
        return (type(self), (self.setting, self.problem, self.remedy))


def counted(number: int, noun: str, several: str = "") -> str:
    """How many of what, for messages: "1 row", "2 rows", "12,000 judged clips"; several: where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def choice(wrong: str, names: Iterable[str]) -> str:
    """What to do about a name that there is not: "did you mean steps? The others are seed, beams" where one of `names`
    is nearly it, else "choose one of steps, seed, beams"; "leave it out" where there are none."""
    there = list(names)
    near = next(iter(difflib.get_close_matches(wrong, there, 1, NEAR)), None)
    if near is None:
        return f"choose one of {', '.join(there)}" if there else "leave it out"
    others = ", ".join(name for name in there if name != near)
    return f"did you mean {near}?" + (f" The others are {others}" if others else "")


NEAR = 0.7
"""How alike two names are, of which one is taken for a slip of the other: difflib's ratio, 1 for the same."""


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what an error says, cut to `most` characters; its type's name where it says nothing."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text[:most] or type(error).__name__


TO_BE_GIVEN = "TO BE GIVEN"
"""What a template of settings has in the place of a value that only its reader knows."""

_BOUNDS = {
    "greater_than": ("too small", "greater than", "gt"),
    "greater_than_equal": ("too small", "of at least", "ge"),
    "less_than": ("too large", "less than", "lt"),
    "less_than_equal": ("too large", "of at most", "le"),
}
_KINDS = {
    "int": ("no whole number", "a whole number"),
    "float": ("no number", "a number"),
    "finite": ("no finite number", "a finite number"),
    "bool": ("neither true nor false", "true or false"),
    "string": ("no text", "text"),
    "list": ("no list", "a list"),
    "tuple": ("no list", "a list"),
    "dict": ("no mapping", "a mapping of names to values"),
    "model": ("no mapping", "a mapping of names to values"),
}


def _sentence(detail: Mapping[str, Any], shown: str, fields: Iterable[str]) -> tuple[str, str]:
    """(problem, remedy) of what pydantic found wrong, an item of `ValidationError.errors()`.

    shown: the value as a message may hold it. fields: the settings that there are, told where one does not exist. A
    validator of ours says `ValueError("problem; remedy")`.
    """
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "there is no such setting", choice(str(detail["loc"][-1]), fields)
    if kind == "missing":
        return "nothing is given", "give a value"
    if kind in _BOUNDS:
        problem, remedy, key = _BOUNDS[kind]
        bound = int(context[key]) if context[key] == int(context[key]) else context[key]
        return f"{shown} is {problem}", f"give a number {remedy} {bound}"
    if kind == "literal_error":
        return f"{shown} is no choice", f"choose {context['expected'].replace(chr(39), '')}"
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition("; ")
        return problem, remedy or "change it"
    if kind in ("too_short", "string_too_short"):
        return f"{shown} is too short", f"give at least {context['min_length']}"
    if kind.partition("_")[0] in _KINDS:
        problem, remedy = _KINDS[kind.partition("_")[0]]
        return f"{shown} is {problem}", f"give {remedy}"
    return f"{shown} cannot be used", str(detail["msg"]).replace("Input should", "it should")


ERROR_CODES = {
    "not_found": "There is no such file.",
    "access_denied": "The store or the file system does not let us read it.",
    "io_error": "Reading failed, more than once; another time it may work (`--retry-errors io_error`).",
    "not_audio": "It is no sound file, or one without sound.",
    "decode_failed": "It is a sound file that no decoder can read, or whose decoder ended.",
    "empty_audio": "It is a sound file without a single sample.",
    "too_large": "It is larger, longer or of more channels than the limits allow.",
    "timeout": "Fetching or decoding it took longer than the limits allow.",
    "refused": "It may not be read: a playlist, a scheme that was not asked for, a path that leads out.",
    "model_error": "The model failed on this row alone.",
}
"""What is wrong with one file or row → what that means."""


class CodedError(Exception):
    """Something about one file that goes into its row: `code` is one of ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class StorageError(CodedError):
    """A path or URL that cannot be used; `code` is not_found, access_denied, io_error, refused or what is wrong with an
    archive there (not_audio, decode_failed, too_large)."""


class DiskFull(StorageError):
    """Nothing more goes onto a disk; the message names the place and says what to do."""


def checked(kind: type[Any], values: Any, where: str) -> Any:
    """`values` as settings of `kind`, a pydantic model; SettingsError names the first wrong field, below `where`."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise field_error(kind, error, where) from None


MOST_TOLD = 8
"""Wrong fields of one mapping that are told together."""


def field_error(
    kind: type[Any],
    error: ValidationError,
    where: str = "",
    shown: Callable[[str, Any], str] | None = None,
    all_of_them: bool = False,
) -> SettingsError:
    """pydantic's error about settings of `kind` as a SettingsError that names the first wrong field, below `where`, and
    with `all_of_them` in further lines the other ones.

    shown: how a message may show a value, given its field's name; by default whole texts up to 80 letters.
    """
    told: dict[str, tuple[str, str]] = {}
    for detail in error.errors():
        raised = (detail.get("ctx") or {}).get("error")
        if isinstance(raised, SettingsError):  # of settings that do not go together: it names the one itself
            told.setdefault(".".join(filter(None, (where, raised.setting))), (raised.problem, raised.remedy))
            continue
        names, fields = _place(kind, detail["loc"])
        name = ".".join([*([where] if where else []), *names]) or "settings"
        # note: of what may be one thing or another, pydantic says what is wrong with it as either; the first will do
        told.setdefault(name, _sentence(detail, (shown or _shown)(name, detail["input"]), fields))
    (name, (problem, remedy)), *others = told.items() if all_of_them else list(told.items())[:1]
    more = [f"\n{each}: {what}; {todo}" for each, (what, todo) in others[: MOST_TOLD - 1]]
    left = len(others) - len(more)
    return SettingsError(name, problem, "".join([remedy, *more, f"\nand {left} more" if left else ""]))


def _place(kind: type[Any], loc: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """(names down to a wrong field, without what pydantic calls the kinds it tried; all fields of its level)."""
    models, names, last = [kind], [], len(loc) - 1
    for at, part in enumerate(loc):
        field = next((model.model_fields[part] for model in models if part in model.model_fields), None)
        of_union = field is None and at < last and bool(models) and models != [kind] and isinstance(part, str)
        names += [] if of_union or _TRIED.fullmatch(str(part)) else [str(part)]
        if field is not None and at < last:
            models = _models(field.annotation)
    return names, list(dict.fromkeys(name for model in models for name in model.model_fields))


_TRIED = re.compile(r"(?:list|dict|tuple|set|function-\w+|constrained-\w+|literal|nullable)\[.*\]|str|int|float|bool")


def _models(annotation: Any) -> list[Any]:
    """The pydantic models that stand in a type."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models(each)]


def checked_field(kind: type[BaseModel], field: str, value: Any, name: str) -> Any:
    """`value` as that field of `kind` would hold it, or a SettingsError that calls it `name`."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    annotation: Any = kind.model_fields[field].annotation
    for rule in kind.model_fields[field].metadata:  # the bounds; an alias is of no use outside its model
        annotation = Annotated[annotation, rule]
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise field_error(kind, error, name) from None


def _shown(name: str, value: Any) -> str:
    """A wrong value in a message: text in quotes, cut to 80 letters."""
    if isinstance(value, str):
        return f'"{value[:80]}"'
    return str(value) if value is None or isinstance(value, (int, float)) else repr(value)[:80]
