"""From a free answer to a label: exact, then normalised, then the nearest in CLAP's text space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

EmbedText = Callable[[list[str]], np.ndarray]
EXACT, NORMALISED, NEAREST, NONE = "exact", "normalised", "nearest", "none"
HOWS = (EXACT, NORMALISED, NEAREST, NONE)

_BATCH = 256
_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic; other scripts' marks are part of their letters
_SIGNS = "#♭"  # C and C# are two answers
_ARTICLE = re.compile(r"^(?:the|an|a) ")
# Where nothing but these follows it, "a" is a letter or a note: "a major", "a b a", "a and c".
_LETTER_A = re.compile(
    r"^a(?: (?:\S[#♭]?|\d+|and|or|then|only|major|minor|maj|min|flat|sharp|natural|key|scale|chord|mode|"
    r"dorian|phrygian|lydian|mixolydian|aeolian|locrian))*$"
)
_LETTERED = re.compile(r"^[b-hj-z][#♭]?(?: |$)")


@dataclass(frozen=True)
class LabelSet:
    """Labels as the publisher writes them, the words for them, and the texts that stand for them in CLAP.

    names: the publisher's labels, each once.
    spoken: what a model is expected to say for each, in the same order (default: the names).
    texts: what stands for each in CLAP, beside sounds and answers (default: ``spoken``).
    """

    names: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("spoken", "texts"):
            if not getattr(self, name):
                object.__setattr__(self, name, self.names if name == "spoken" else self.spoken)
            if len(getattr(self, name)) != len(self.names):
                raise ValueError(f"{len(getattr(self, name))} {name} for {len(self.names)} labels")

    def __len__(self) -> int:
        return len(self.names)


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """Lower case, without accents, punctuation and underscores, "&" as "and", single spaces.

    Letters of every script stay, and so do the signs # and ♭, which tell notes apart.
    """
    text = text.replace("♯", "#").replace("&", " and ").replace("'", "").replace("’", "")
    text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold()))
    kept = (c if c in _SIGNS or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join("".join(kept).split())


def without_article(form: str) -> str:
    """A normalised text without the article in front; an "a" that may be a letter or a note stays."""
    return form if _LETTER_A.match(form) else _ARTICLE.sub("", form)


def loose_forms(forms: Sequence[str]) -> tuple[list[str], list[str]]:
    """Forms normalised, and the same without their articles.

    Beside a form that starts with another letter ("D string") the "a" of "A string" is no article.
    """
    full = [normalise(form) for form in forms]
    lettered = any(_LETTERED.match(form) for form in full)
    return full, [form if lettered and form.startswith("a ") else without_article(form) for form in full]


@dataclass(frozen=True)
class Match:
    """The place in the label set an answer was taken for (None: none), and how it was found."""

    index: int | None
    how: str


def match_labels(answers: Sequence[str], labels: LabelSet, embed_text: EmbedText | None = None) -> list[Match]:
    """The label each answer names.

    An answer matches exactly when it is a label's name or spoken form, letter for letter but for the case of the
    first letter (answers begin with a capital), space around it and a final full stop; normalised when both are equal
    after `normalise`, or after that without an article in front. A form that is empty then, or that two labels share,
    is nobody's. Any other answer goes to the label whose text is nearest in ``embed_text``'s space; without
    ``embed_text``, and for an empty answer, to none.
    """
    places = list(range(len(labels)))
    exact = [_places(labels.names, places), _places(labels.spoken, places)]
    exact.append(_places([_first_lower(form) for form in (*labels.names, *labels.spoken)], places * 2))
    loose = [_places(forms, places * 2) for forms in loose_forms((*labels.names, *labels.spoken))]
    found: list[Match] = []
    for answer in answers:
        said = (answer.strip(), answer.strip().removesuffix("."))
        literal = _first(exact, (*said, *map(_first_lower, said)))
        if literal is not None:
            found.append(Match(literal, EXACT))
            continue
        plain = normalise(answer)
        place = _first(loose, (plain, without_article(plain)))
        found.append(Match(place, NONE if place is None else NORMALISED))
    open_ones = [k for k, match in enumerate(found) if match.index is None and answers[k].strip()]
    if embed_text is not None and open_ones and len(labels):
        near = similarities([answers[k] for k in open_ones], labels.texts, embed_text).argmax(axis=1)
        for k, i in zip(open_ones, near, strict=True):
            found[k] = Match(int(i), NEAREST)
    return found


def _places(forms: Sequence[str], places: Sequence[int]) -> dict[str, int]:
    """Form → its place; without forms that are empty or have two places."""
    found: dict[str, set[int]] = {}
    for form, place in zip(forms, places, strict=True):
        found.setdefault(form, set()).add(place)
    return {form: min(own) for form, own in found.items() if form and len(own) == 1}


def _first(tables: Sequence[dict[str, int]], forms: Sequence[str]) -> int | None:
    return next((table[form] for table in tables for form in forms if form in table), None)


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def similarities(answers: Sequence[str], texts: Sequence[str], embed_text: EmbedText) -> np.ndarray:
    """Cosine similarity, float64 [answers, texts]; every distinct answer is embedded once."""
    distinct = list(dict.fromkeys(answers))
    at = {text: i for i, text in enumerate(distinct)}
    ours, theirs = unit_embeddings(distinct, embed_text), unit_embeddings(list(texts), embed_text)
    return (ours @ theirs.T)[[at[text] for text in answers]]


def unit_embeddings(texts: list[str], embed_text: EmbedText) -> np.ndarray:
    """Unit embeddings float64 [N, D] of texts, made in batches."""
    parts = [np.asarray(embed_text(texts[i : i + _BATCH]), dtype=np.float64) for i in range(0, len(texts), _BATCH)]
    table = np.concatenate(parts)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
