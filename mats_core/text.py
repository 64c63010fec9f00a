"""Answer clean-up, and reading labels out of an answer."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from mats_core.errors import SettingsError

AnswerStyle = Literal["gentle", "reference"]

# Letters and signs that Unicode does not decompose into ASCII.
_PLAIN = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
        "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "‘": "'", "’": "'", "‚": ",",
        "“": '"', "”": '"', "„": '"', "«": "<<", "»": ">>", "–": "-", "—": "--", "…": "...", "•": "*",
        "×": "x", "°": "deg", "€": "EUR", "£": "PS",
    }
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]")


def to_ascii(text: str) -> str:
    """Latin text without accents; what has no ASCII likeness falls away (close to the reference's unidecode)."""
    return unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()


def clean_answer(text: str, style: AnswerStyle = "gentle") -> str:
    """An answer as shown: one space after a comma and none before, runs of space collapsed.

    gentle: accents, other scripts and capitals stay; the first letter becomes a capital, control characters fall away.
    reference: as the authors' release, in ASCII, only the first letter a capital.
    """
    if style == "reference":
        text = to_ascii(text.strip().capitalize())
    elif style == "gentle":
        text = _CONTROL.sub("", unicodedata.normalize("NFC", text)).strip()
        text = text[:1].upper() + text[1:]
    else:
        raise SettingsError("answer_style", style, "gentle, reference")
    text = re.sub(r"\s*,(?!\d)\s*", ", ", text) if style == "gentle" else re.sub(r"\s*,\s*", ", ", text)
    return re.sub(r"\s+", " ", text).strip()


def parse_labels(text: str) -> list[str]:
    """Labels of a list answer ("Dog; rain, wind."): lower case, in order, each once."""
    labels = (re.sub(r"\s+", " ", part).strip(" .\"'").lower() for part in re.split(r"[;,\n]", text))
    return list(dict.fromkeys(label for label in labels if label))
