"""`python -m jobs` is `mats`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `mats`. Ctrl-C while the commands are imported ends it as it does later."""
    try:
        from jobs.cli import main as run

        run()
    except KeyboardInterrupt:
        print("mats: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
