"""How far a run is: what every pipeline on Ray tells whoever started it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run is; a pipeline calls its `progress` argument with one whenever that changes.

    stage: wait (another run holds the lease of OUTPUT), scan, start (Ray and the models), run, done. done: rows that
    are finished, `before` of them by earlier runs, `errors` of them with an error code; total: rows there are, 0 while
    they are still being counted. seconds: of audio in the finished rows.
    """

    stage: str
    done: int = 0
    total: int = 0
    before: int = 0
    errors: int = 0
    seconds: float = 0.0
