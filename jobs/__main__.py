"""`python -m jobs` is `mats`."""

from jobs.cli import main

if __name__ == "__main__":
    main()
