"""Errors a person can act on."""

from __future__ import annotations


class SettingsError(ValueError):
    """A setting that cannot work, found before any work starts.

    The command line ends with exit code 2 on it. `setting` is the name the user knows, `given` what they
    gave, `allowed` what would have been right.
    """

    def __init__(self, setting: str, given: object, allowed: str) -> None:
        self.setting = setting
        self.given = given
        self.allowed = allowed
        shown = f'"{given}"' if isinstance(given, str) else str(given)
        super().__init__(f"{setting}: got {shown}; allowed: {allowed}")

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, object, str]]:
        return (SettingsError, (self.setting, self.given, self.allowed))


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
