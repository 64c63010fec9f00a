"""Which records a mixture is trained on, and which it is measured on.

Captions are held out whole: no set trains on a caption that a set is measured on. Not those that stand for a label, as
"dog barking" does for every clip of a class: to hold one out would take the class from the set, and from any other set
that has it. A set that is mostly labels is measured on some of its records instead; it has then met their captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEW_RECORDS = 10
"""A caption behind no more records of a set than this is no label, unless the set is a small one."""


@dataclass
class SetRows:
    """A set before it is split. rows: int64 [records], the number of each record's embedding in `table`; rank: int64
    [rows of the table], the order captions are held out in; held_from: the first record of a corpus of its own."""

    rows: np.ndarray
    table: str
    rank: np.ndarray
    wanted: int
    held_from: int | None = None

    @property
    def own(self) -> np.ndarray:
        """The rows of what may be trained on."""
        return self.rows[: self.held_from]


@dataclass
class Split:
    """A set's records by number, and how it came to them.

    held_by: caption, record, corpus (one of its own) or nothing. given_up: records not trained on because another set
    holds their caption out. met: held-out records whose caption some set trains on.
    """

    train: np.ndarray
    validation: np.ndarray
    held_by: str
    given_up: int
    met: int


def most_records(size: int) -> int:
    """Records of a set of `size` that may have one caption before it is a label: a thousandth, or FEW_RECORDS, but no
    more than a twentieth."""
    return max(1, min(size // 20, max(FEW_RECORDS, size // 1000)))


def split(sets: Sequence[SetRows]) -> list[Split]:
    """Hold out about `wanted` records of each set, never more, and what other sets must leave out for them."""
    labels = {each.table: np.zeros(len(each.rank), bool) for each in sets}
    for each in sets:
        counts = np.bincount(each.own, minlength=len(each.rank))
        labels[each.table] |= counts > most_records(len(each.own))
    chosen = [_choose(each, labels[each.table]) for each in sets]
    held = {each.table: np.zeros(len(each.rank), bool) for each in sets}
    for each, (how, records) in zip(sets, chosen, strict=True):
        if how != "record":
            held[each.table][each.rows[records]] = True
    met = {each.table: np.zeros(len(each.rank), bool) for each in sets}
    trained = []
    for each, (_, records) in zip(sets, chosen, strict=True):
        left = np.ones(len(each.own), bool)
        left[records[records < len(left)]] = False
        apart = held[each.table][each.own] & ~labels[each.table][each.own]
        trained.append((np.flatnonzero(left & ~apart), int((left & apart).sum())))
        met[each.table][each.own[trained[-1][0]]] = True
    return [
        Split(train, records, how, given_up, int(met[each.table][each.rows[records]].sum()))
        for each, (how, records), (train, given_up) in zip(sets, chosen, trained, strict=True)
    ]


def _choose(each: SetRows, labels: np.ndarray) -> tuple[str, np.ndarray]:
    """(how, record numbers in order) of what a set is measured on."""
    if each.held_from is not None:
        return "corpus", np.arange(each.held_from, len(each.rows))
    if each.wanted < 1:
        return "nothing", np.empty(0, np.int64)
    if 2 * int(labels[each.rows].sum()) <= len(each.rows):
        records = _whole_captions(each, labels)
        if len(records):
            return "caption", records
    return "record", np.sort(np.random.default_rng(0).permutation(len(each.rows))[: each.wanted])


def _whole_captions(each: SetRows, labels: np.ndarray) -> np.ndarray:
    """The records of captions in the order of their rank, as long as they fit."""
    counts = np.bincount(each.rows, minlength=len(each.rank))
    captions = np.flatnonzero((counts > 0) & ~labels)
    taken = np.zeros(len(each.rank), bool)
    left = each.wanted
    for caption in captions[np.argsort(each.rank[captions])]:
        if counts[caption] <= left:
            taken[caption] = True
            left -= int(counts[caption])
            if not left:
                break
    return np.flatnonzero(taken[each.rows])
