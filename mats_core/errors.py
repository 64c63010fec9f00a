"""Errors a person can act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

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


def got_allowed(setting: str, given: object, allowed: str) -> SettingsError:
    """The old wording of a SettingsError. To be replaced, call by call, by a sentence."""
    shown = f'"{given}"' if isinstance(given, str) else str(given)
    return SettingsError(setting, f"got {shown}", f"allowed: {allowed}")


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what an error says, cut to `most` characters; its type's name where it says nothing."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text[:most] or type(error).__name__


ERROR_CODES = (
    "not_found",
    "access_denied",
    "io_error",
    "not_audio",
    "decode_failed",
    "empty_audio",
    "too_large",
    "timeout",
    "refused",
    "model_error",
)


class CodedError(Exception):
    """Something about one file that goes into its row: `code` is one of ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def checked(kind: type[Any], values: Any, where: str) -> Any:
    """`values` as settings of `kind`, a pydantic model; SettingsError names the first wrong field, below `where`."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise field_error(kind, error, where) from None


def field_error(
    kind: type[Any], error: ValidationError, where: str = "", shown: Callable[[str, Any], str] | None = None
) -> SettingsError:
    """pydantic's error about settings of `kind` as a SettingsError that names the first wrong field, below `where`.

    shown: how a message may show a value, given its field's name; by default whole texts up to 80 letters.
    """
    first = error.errors()[0]
    name = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])]) or kind.__name__
    if first["type"] == "extra_forbidden":
        return SettingsError(name, "there is no such setting", f"choose one of {', '.join(kind.model_fields)}")
    if first["type"] == "missing":
        return SettingsError(name, "it is missing", "give it a value")
    if first["type"] == "value_error" and isinstance(first["input"], dict):  # fields that do not go together
        return SettingsError(name, _rule(first["msg"]), "put it right")
    given = shown(name, first["input"]) if shown else _shown(first["input"])
    return SettingsError(name, f"{given} cannot be used", _rule(first["msg"]))


def checked_field(kind: type[BaseModel], field: str, value: Any, name: str) -> Any:
    """`value` as that field of `kind` would hold it, or a SettingsError that calls it `name`."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    found = kind.model_fields[field]
    annotation: Any = found.annotation
    for rule in found.metadata:  # the bounds; an alias is of no use outside its model
        annotation = Annotated[annotation, rule]
    rules: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    try:
        return rules.validate_python(value)
    except ValidationError as error:
        raise SettingsError(name, f"{_shown(value)} cannot be used", _rule(error.errors()[0]["msg"])) from None


def _shown(value: Any) -> str:
    """A wrong value in a message: text in quotes, cut to 80 letters."""
    if isinstance(value, str):
        return f'"{value[:80]}"'
    return str(value) if value is None or isinstance(value, (int, float)) else repr(value)[:80]


def _rule(message: str) -> str:
    """pydantic's message as what to do: "Input should be …" and "Value error, …" without their beginnings."""
    if message.startswith("Input should be "):
        return "it must be " + message.removeprefix("Input should be ")
    return message.removeprefix("Value error, ")
