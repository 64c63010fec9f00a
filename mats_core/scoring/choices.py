"""Questions with options: their order, how they are asked, what an answer chose, accuracy by category and order."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from string import ascii_uppercase
from typing import Any, TypeVar

import numpy as np

from mats_core.scoring.items import Answers, Item, Scores
from mats_core.scoring.matching import (
    EXACT,
    HOWS,
    NORMALISED,
    EmbedText,
    LabelSet,
    loose_forms,
    match_labels,
    normalise,
)  # fmt: skip
from mats_core.scoring.metric import no_answer, of_values, per_category

T = TypeVar("T")
LETTER, NAMED = "letter", "named"
WITHHELD = "the publisher keeps the answer"
_LETTER = re.compile(
    r"^[^\w(]*(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?"
    r"(?:\((?P<in>[a-z])\)|(?P<mark>[a-z])[).:](?=\s|$)|(?P<alone>[a-z])[^\w#♯♭]*$)",
    re.IGNORECASE,
)
_NOTE = re.compile(r"[a-z][#♭]?")


def order(choices: Sequence[T], seed: int, item_id: str) -> list[T]:
    """The options in the order of a seed: a function of (seed, item id) alone, whatever else is asked."""
    key = hashlib.blake2b(f"{seed}\0{item_id}".encode(), digest_size=8).digest()
    places = np.random.default_rng(int.from_bytes(key, "big")).permutation(len(choices))
    return [choices[i] for i in places]


def ask(question: str, shown: Sequence[str]) -> str:
    """The question as put to the model: with its options, lettered, in the order shown."""
    options = " ".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, shown, strict=False))
    return f"{question.strip()} Choose one of the following options: {options}"


def match(answer: str, shown: Sequence[str], embed_text: EmbedText | None = None) -> tuple[int | None, str]:
    """The option an answer chose (its place in the order shown, None: none), and how it was found.

    In turn: the option's own text (``exact``, ``normalised``); its letter (``letter``: "B", "(B)", "B. dog"; where
    options are letters or notes themselves, "(B)" alone); the one option whose words stand in the answer (``named``);
    the nearest in ``embed_text``'s space (``nearest``).
    """
    found = match_labels([answer], LabelSet(tuple(shown)))[0]
    if found.how in (EXACT, NORMALISED):
        return found.index, found.how
    full, bare = loose_forms(shown)
    letter = _LETTER.match(answer.strip())
    if letter and (letter["in"] or not any(_NOTE.fullmatch(form) for form in full)):
        place = ascii_uppercase.index(next(g for g in letter.groups() if g).upper())
        if place < len(shown):
            return place, LETTER
    words = f" {normalise(answer)} "
    named = [i for i, forms in enumerate(zip(full, bare, strict=True)) if any(f and f" {f} " in words for f in forms)]
    if len(named) == 1:
        return named[0], NAMED
    found = match_labels([answer], LabelSet(tuple(shown)), embed_text)[0]
    return found.index, found.how


@dataclass(frozen=True)
class Choice:
    """What an answer chose: its place in the order shown and the option itself (None: none), and how it was found."""

    place: int | None
    option: str | None
    how: str


def choose(item: Item, text: str | None, seed: int, embed_text: EmbedText | None = None) -> Choice | None:
    """What an answer to an item chose, its options shown in the order of the seed; None where there is no answer."""
    if text is None:
        return None
    shown = order(item.choices, seed, item.item_id)
    place, how = match(text, shown, embed_text)
    return Choice(place, None if place is None else shown[place], how)


def texts_of(answer: str | Sequence[str | None] | None) -> list[str | None]:
    """The answers to one item, one for each order of its options."""
    return [answer] if isinstance(answer, str) or answer is None else list(answer)


def score(
    items: Sequence[Item], answers: Answers, wanted: Sequence[str], embed_text: EmbedText | None, seed: int
) -> Scores:
    """Accuracy over items, an item's value being the share of the orders in which it was answered right.

    ``details``: ``per_category`` (accuracy, interval, n), ``orders`` (accuracy of every order, in turn), ``spread``
    (their standard deviation and range), ``first_option`` (share of answers that take the first option shown: a
    model that reads the options takes about 1 / number of options), ``match`` (how answers were matched).
    """
    each = [texts_of(a) for a in answers]
    taken = [
        [choose(item, text, seed + k, embed_text) for k, text in enumerate(texts)]
        for item, texts in zip(items, each, strict=True)
    ]
    right = [
        [None if not item.answer or c is None else c.option == item.answer for c in row]
        for item, row in zip(items, taken, strict=True)
    ]
    silent = no_answer(answers)
    why = [reason or ("" if item.answer else WITHHELD) for reason, item in zip(silent, items, strict=True)]
    values = [_mean(row) for row in right]
    note = "share of answers that choose one of the options"
    named = [_mean([None if c is None else c.option is not None for c in row]) for row in taken]
    wanted_of = {"accuracy": (values, why, ""), "matched": (named, silent, note)}
    by_order = [_mean(column) for column in zip_longest(*right)]
    known = [a for a in by_order if a is not None]
    found = [c for row in taken for c in row if c is not None]
    hows = Counter(c.how for c in found)
    return Scores(
        metrics={
            name: of_values(name, items, numbers, reasons, seed, note=note)
            for name, (numbers, reasons, note) in ((name, wanted_of[name]) for name in wanted)
        },
        details={
            "per_category": per_category(items, values, seed),
            "orders": by_order,
            "spread": {"std": float(np.std(known)), "low": min(known), "high": max(known)} if known else None,
            "first_option": _mean([c.place == 0 for c in found]),
            "match": {how: hows[how] / len(found) for how in (*HOWS[:2], LETTER, NAMED, *HOWS[2:]) if found},
            "matched": [row[0].option if row and row[0] else None for row in taken],
        },
    )


def mmau_records(
    records: Sequence[tuple[str, Mapping[str, Any]]], items: Sequence[Item], answers: Answers, seed: int = 0
) -> str:
    """The JSON that MMAU's evaluation takes: its own list with ``model_prediction``, the option chosen in the order of
    ``seed`` (the answer itself where it chooses none). What was not asked or not answered has an empty prediction.

    records: (item id, the publisher's record), in its order.
    """
    said: dict[str, str] = {}
    for item, given in zip(items, answers, strict=True):
        text = next(iter(texts_of(given)), None)
        taken = choose(item, text, seed)
        said[item.item_id] = (text or "") if taken is None or taken.option is None else taken.option
    whole = [{**record, "model_prediction": said.get(item_id, "")} for item_id, record in records]
    return json.dumps(whole, ensure_ascii=False, indent=1)


def _mean(values: Iterable[bool | None]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return float(np.mean(known)) if known else None
