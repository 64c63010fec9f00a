"""Cleaning up an answer, and telling text from bytes that are none."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from mats_core.errors import SettingsError

AnswerStyle = Literal["gentle", "reference"]

# Letters and signs whose ASCII is not what their Unicode decomposition leaves, as the reference's unidecode has it.
_PLAIN = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
        "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "ħ": "h", "Ħ": "H",
        "ŋ": "ng", "Ŋ": "NG", "ŧ": "t", "Ŧ": "T", "ŉ": "'n",
        "‘": "'", "’": "'", "‚": ",", "‛": "'", "“": '"', "”": '"', "„": ",,", "‟": '"', "«": "<<", "»": ">>",
        "‹": "<", "›": ">", "′": "'", "″": "''", "´": "'", "¨": '"', "¯": "-", "¸": ",", "¡": "!", "¿": "?",
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "--", "―": "--", "…": "...", "•": "*", "·": "*", "¦": "|",
        "†": "+", "‡": "++", "‰": "%0", "§": "SS", "¶": "P", "©": "(c)", "®": "(r)", "™": "(tm)", "№": "No. ",
        "×": "x", "÷": "/", "±": "+-", "−": "-", "¬": "!", "≤": "<=", "≥": ">=", "≠": "", "∼": "~", "µ": "u",
        "←": "-", "→": "-", "↑": "|", "↓": "|",
        "°": "deg", "℃": "degC", "℉": "degF", "€": "EUR", "£": "PS", "¢": "C/", "¥": "Y=", "¤": "$?", "₹": "Rs",
        "♯": "#", "⁄": "/",
        "¼": " 1/4", "½": " 1/2", "¾": " 3/4", "⅓": " 1/3 ", "⅔": " 2/3 ", "⅕": " 1/5 ", "⅖": " 2/5 ", "⅗": " 3/5 ",
        "⅘": " 4/5 ", "⅙": " 1/6 ", "⅚": " 5/6 ", "⅛": " 1/8 ", "⅜": " 3/8 ", "⅝": " 5/8 ", "⅞": " 7/8 ",
    }
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]")


def to_ascii(text: str) -> str:
    """Latin text without accents, common signs spelled out, as the reference's unidecode does; the rest falls away."""
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
        raise SettingsError("answer_style", f'"{style}" is no style', "choose gentle or reference")
    text = re.sub(r"\s*,(?!\d)\s*", ", ", text) if style == "gentle" else re.sub(r"\s*,\s*", ", ", text)
    return re.sub(r"\s+", " ", text).strip()


def has_surrogate(text: str) -> bool:
    """Whether a text holds what stands for bytes that are not UTF-8, which no file keeps as text."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)
