"""The share of a whole that is right, by a stratified sample, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959964
"""Of 95 %."""
MOST_GAIN = 2.0
"""A sample of n counts as one of at most so many times n, however alike its strata look inside."""


@dataclass(frozen=True)
class Share:
    """An estimated share and its 95 % interval, by `judged` of `rows`."""

    value: float
    low: float
    high: float
    judged: int
    rows: float

    def __str__(self) -> str:
        return f"{self.value:.1%} right ({self.low:.1%} to {self.high:.1%}), {self.judged} judged"


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a share in n draws (1927)."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def stratified(strata: Sequence[tuple[float, Sequence[bool]]]) -> Share | None:
    """The share of all rows that is right: (rows, judgements) a stratum, in an order in which neighbours are alike.

    The mean of the strata's shares by their rows; its interval is Wilson's for the number of plain draws that would
    have the same variance (Korn and Graubard's effective size, 1998), less what is judged of a finite whole. A stratum
    with fewer than two judgements is joined to its neighbour. None where nothing is judged.
    """
    joined: list[tuple[float, list[bool]]] = []
    for rows, judged in strata:
        if joined and (len(joined[-1][1]) < 2 or len(judged) < 2):
            joined[-1] = (joined[-1][0] + rows, [*joined[-1][1], *judged])
        else:
            joined.append((rows, list(judged)))
    n = sum(len(judged) for _, judged in joined)
    total = sum(rows for rows, _ in joined)
    if not n:
        return None
    share = variance = left = 0.0
    for rows, judged in joined:
        own, weight = float(np.mean(judged)), rows / total
        unseen = max(0.0, 1 - len(judged) / rows)
        share += weight * own
        left += weight * unseen
        if len(judged) > 1:
            variance += weight**2 * unseen * own * (1 - own) / (len(judged) - 1)
    if not left:  # all are judged
        return Share(share, share, share, n, total)
    plain = n / left
    size = min(share * (1 - share) / variance, MOST_GAIN * plain) if variance > 0 else plain
    return Share(share, *wilson(share, size), n, total)
