"""`python -m jobs` is `mats`."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `mats`. SIGTERM (a stopped pod or job) and SIGHUP (a closed terminal) are Ctrl-C, from the first
    moment, while the commands are still imported."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, _stop)
    try:
        from jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        print("mats: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
