"""`python -m jobs.benchmarks.gpu` is `mats benchmark gpu`, without the imports of the other commands."""

import sys

from jobs.benchmarks.commands import app

if __name__ == "__main__":
    app(["gpu", *sys.argv[1:]], prog_name="mats benchmark")
