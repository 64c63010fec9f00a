"""Values as a spreadsheet may hold them."""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
MOST_CHARACTERS = 32_767
"""Of one cell, in Excel."""


def plain_cell(value: Any) -> Any:
    """A value for a cell of CSV or XLSX: texts that a spreadsheet would take for a formula get an apostrophe before
    them, characters that no sheet holds become �, and long texts are cut. Numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = _UNFIT.sub("�", value)
    text = f"'{text}" if _FORMULA.match(text) else text
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def of_cell(value: Any) -> Any:
    """What `plain_cell` wrote as this value: without the apostrophe that stands before what looks like a formula."""
    if isinstance(value, str) and value.startswith("'") and plain_cell(value[1:]) == value:
        return value[1:]
    return value
