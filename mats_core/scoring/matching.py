"""From a free answer to a label: exact, then normalised, then the nearest in CLAP's text space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

EmbedText = Callable[[list[str]], np.ndarray]
EXACT, NORMALISED, NEAREST, NONE = "exact", "normalised", "nearest", "none"
HOWS = (EXACT, NORMALISED, NEAREST, NONE)

_ARTICLES = re.compile(r"^(the|a|an) ")
_NO_WORD = re.compile(r"[^\w\s]|_")
_BATCH = 256


@dataclass(frozen=True)
class LabelSet:
    """Labels as the publisher writes them, the words for them, and the texts that stand for them in CLAP.

    Attributes:
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


def normalise(text: str) -> str:
    """Lower case, without accents, punctuation and underscores, "&" as "and", no article in front, single spaces."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    text = " ".join(_NO_WORD.sub(" ", text.replace("&", " and ").replace("'", "")).split())
    return _ARTICLES.sub("", text)


@dataclass(frozen=True)
class Match:
    """The place in the label set an answer was taken for (None: none), and how it was found."""

    index: int | None
    how: str


def match_labels(answers: Sequence[str], labels: LabelSet, embed_text: EmbedText | None = None) -> list[Match]:
    """The label each answer names.

    An answer matches exactly when it is a label's name or spoken form, letter for letter but for space around it
    and a final full stop; normalised when both are equal after `normalise`. Any other answer goes to the label whose
    text is nearest in ``embed_text``'s space; without ``embed_text``, and for an empty answer, to none.
    """
    exact: dict[str, int] = {}
    plain: dict[str, int] = {}
    for forms in (labels.names, labels.spoken):
        for i, form in enumerate(forms):
            exact.setdefault(form, i)
            plain.setdefault(normalise(form), i)
    found: list[Match] = []
    for answer in answers:
        stripped = answer.strip()
        literal = exact.get(stripped, exact.get(stripped.removesuffix(".")))
        loose = plain.get(normalise(answer))
        if literal is not None:
            found.append(Match(literal, EXACT))
        else:
            found.append(Match(loose, NONE if loose is None else NORMALISED))
    open_ones = [k for k, match in enumerate(found) if match.index is None and answers[k].strip()]
    if embed_text is not None and open_ones and len(labels):
        near = similarities([answers[k] for k in open_ones], labels.texts, embed_text).argmax(axis=1)
        for k, i in zip(open_ones, near, strict=True):
            found[k] = Match(int(i), NEAREST)
    return found


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
