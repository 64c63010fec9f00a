"""Captions searched as text, by BM25, and two rankings joined by reciprocal ranks (Cormack et al., 2009)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

K1, B = 1.2, 0.75
"""Of BM25: how soon more of a word adds no more, and how much longer captions count for less."""
JOINED_AT = 60
"""Added to every rank, so that the first places do not decide alone."""
_IDLE_WORDS = """
    a an and are as at be by for from has have heard in into is it its of on or over sound sounds that the then there
    this to was while with
"""
_IDLE = frozenset(_IDLE_WORDS.split())
_ENDINGS = re.compile(r"(?<=\w{3})(ing|ed|es|s)$")


def search_words(query: str) -> list[str]:
    """The words of a query that tell anything, without endings: "a barking dog" → bark, dog."""
    words = re.findall(r"\w+", query.lower())
    told = [word for word in words if word not in _IDLE] or words
    return list(dict.fromkeys(_ENDINGS.sub("", word) for word in told))


def rank_captions(text: pa.ChunkedArray, query: str, most: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Rows whose caption has words of `query` at the beginning of its words, the best first: int64 [≤ most]."""
    lengths = pc.fill_null(pc.utf8_length(text), 0).to_numpy().astype(np.float64)
    usual = lengths[lengths > 0].mean() if (lengths > 0).any() else 1.0
    held = K1 * (1 - B + B * lengths / usual)
    scores = np.zeros(len(text))
    for word in search_words(query):
        # note: RE2's \b knows ASCII alone
        pattern = rf"(?i)\b{re.escape(word)}" if word.isascii() else f"(?i){re.escape(word)}"
        counts = pc.fill_null(pc.count_substring_regex(text, pattern=pattern), 0).to_numpy()
        rows = int((counts > 0).sum())
        rarity = np.log(1 + (len(text) - rows + 0.5) / (rows + 0.5))
        scores += rarity * counts * (K1 + 1) / (counts + held)
    if allowed is not None:
        scores[~allowed] = 0.0
    found = np.flatnonzero(scores > 0)
    return found[np.argsort(-scores[found], kind="stable")][:most]


def joined(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """What is in any of the rankings → Σ 1 / (JOINED_AT + rank), the best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, each in enumerate(ranking):
            scores[each] = scores.get(each, 0.0) + 1.0 / (JOINED_AT + rank + 1)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
