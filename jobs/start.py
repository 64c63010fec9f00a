"""What `mats` does before its commands are imported: standard streams are open, and signals are Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def open_streams() -> None:
    """Put something where a standard stream is closed: a file that is opened later would take its place, and what is
    then printed would go into that file. Writing to a closed standard output fails, as it should."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (until the process ends)
    if sys.stderr is None:  # note: print() to a stream that is None goes to standard output
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Entry point of `mats`. SIGTERM (a stopped pod or job) and SIGHUP (a closed terminal) are Ctrl-C, from the first
    moment, while the commands are still imported."""
    open_streams()
    gc.set_threshold(100_000)  # looking for what nobody uses is a tenth of the time that importing takes
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, _stop)
    try:
        from jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        print("mats: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # of --help; a command ends as `guarded` says
        from jobs.terminal.commands import output_lost

        told = output_lost(error)
        if told is None:
            raise
        print(f"mats: {told}", file=sys.stderr)
        sys.exit(1)
