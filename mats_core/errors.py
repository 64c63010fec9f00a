"""Errors a person can act on."""

from __future__ import annotations


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


class StorageError(CodedError):
    """A path or URL that cannot be used; `code` is not_found, access_denied, io_error, refused or what is wrong with an
    archive there (not_audio, decode_failed, too_large)."""
