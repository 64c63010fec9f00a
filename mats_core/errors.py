"""Errors a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


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


def wrong_setting(detail: Mapping[str, Any], setting: str, shown: str, fields: Iterable[str] = ()) -> SettingsError:
    """What pydantic found wrong (an item of `ValidationError.errors()`) as a SettingsError.

    shown: the value as a message may hold it. fields: the settings that there are, told where one does not exist. A
    validator of ours says `ValueError("problem; remedy")`.
    """
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind == "extra_forbidden":
        names = ", ".join(fields)
        return SettingsError(setting, "there is no such setting", f"choose one of {names}" if names else "leave it out")
    if kind == "missing":
        return SettingsError(setting, "nothing is given", "give a value")
    if kind in _BOUNDS:
        problem, remedy, key = _BOUNDS[kind]
        bound = int(context[key]) if context[key] == int(context[key]) else context[key]
        return SettingsError(setting, f"{shown} is {problem}", f"give a number {remedy} {bound}")
    if kind == "literal_error":
        return SettingsError(setting, f"{shown} is no choice", f"choose {context['expected'].replace(chr(39), '')}")
    if kind == "value_error":
        problem, _, remedy = str(context["error"]).partition("; ")
        return SettingsError(setting, problem, remedy or "change it")
    if kind in ("too_short", "string_too_short"):
        return SettingsError(setting, f"{shown} is too short", f"give at least {context['min_length']}")
    if kind.partition("_")[0] in _KINDS:
        problem, remedy = _KINDS[kind.partition("_")[0]]
        return SettingsError(setting, f"{shown} is {problem}", f"give {remedy}")
    return SettingsError(setting, f"{shown} cannot be used", str(detail["msg"]).replace("Input should", "it should"))


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
