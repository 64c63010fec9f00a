"""How a command of `mats` is registered and how it ends: one line on stderr, and the exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from mats_core.errors import SettingsError, first_line
from mats_core.storage.uris import redacted

EXIT_WRONG_SETTINGS = 2
EXIT_TOO_MANY_ERRORS = 3
EXIT_GATE_CLOSED = 4
EXIT_INTERRUPTED = 130
EXIT_CODES = {
    0: "Done.",
    1: "Anything else: what went wrong is on standard error, and MATS_DEBUG=1 shows where.",
    EXIT_WRONG_SETTINGS: "A setting or an input that cannot work, found before any work.",
    EXIT_TOO_MANY_ERRORS: "Done, but more rows failed than --max-error-rate allows.",
    EXIT_GATE_CLOSED: "Done, but an evaluation is worse than the one it was held against.",
    EXIT_INTERRUPTED: "Stopped by Ctrl-C, SIGTERM or a closed terminal; the same command continues.",
}
"""How a command ends → what that means."""


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a function with typer's own parameters that returns an exit code; `options` go to typer."""

    def register(run: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(run)
        def wrapped(*args: Any, **given: Any) -> None:
            raise typer.Exit(guarded(lambda: run(*args, **given)))

        app.command(name, **options)(wrapped)
        return run

    return register


def guarded(body: Callable[[], int]) -> int:
    """Run a command's body; an error becomes one clear line and its exit code (DESIGN.md)."""
    try:
        code = body()
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk shows here, and not after the exit code is settled
        return code
    except SettingsError as error:
        return _ended(str(error), EXIT_WRONG_SETTINGS)
    except KeyboardInterrupt:
        return _ended("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        told = output_lost(error) or _full(error)
        if told is not None:
            return _ended(told, 1)
        if os.environ.get("MATS_DEBUG"):
            print(redacted(traceback.format_exc()), file=sys.stderr)
        return _ended(f"{type(error).__name__}: {first_line(error, 1000)} (MATS_DEBUG=1 shows where)", 1)


def _full(error: Exception) -> str | None:
    """What to do where a disk is full, as a store says it or the system."""
    from mats_core.errors import DiskFull
    from mats_core.storage.errors import full_disk

    full = error if isinstance(error, DiskFull) else full_disk(error, "what this command writes")
    return full.message if full is not None else None


def output_lost(error: Exception) -> str | None:
    """That standard output takes nothing (a full disk, a closed stream), and why, where `error` may come from that."""
    if sys.stdout is None or not isinstance(error, OSError) or error.filename is not None:
        return None
    try:
        print(flush=True)
        return None
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # note: else it fails again at exit, with a traceback
        return f"standard output cannot be written ({error.strerror or error}); what a run put into its OUTPUT is there"


def _ended(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # standard error may be full or closed as well
        print(f"mats: {redacted(message)}", file=sys.stderr)  # a library's message may hold a signed URL
    return code
