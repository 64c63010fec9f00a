"""What people have judged: CSV of any spreadsheet, JSONL, XLSX or Parquet → rows, and judgements as bool."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from pipelines.data import parquet
from pipelines.data.lists import separator_of
from pipelines.pages.cells import of_cell, plain_cell

RIGHT = frozenset([
    "yes", "y", "yep", "yeah", "right", "correct", "ok", "okay", "good", "true", "t", "1", "pass", "passed", "+", "ja",
    "j", "richtig", "wahr", "oui", "o", "vrai", "correcte", "juste", "si", "s", "verdadero", "sim", "vero", "giusto",
])  # fmt: skip
WRONG = frozenset([
    "no", "n", "nope", "wrong", "incorrect", "bad", "false", "f", "0", "fail", "failed", "not", "nein", "falsch", "non",
    "faux", "nao", "falso", "sbagliato", "✗", "✘", "☒", "❌",
])  # fmt: skip
TICKS = frozenset(["✓", "✔", "☑", "✅", "v", "*"])
CROSS = "x"
"""Right, as one crosses a box; wrong, where the column has other words or ticks for right and none for wrong."""
UNSURE = frozenset([
    "", "?", "??", "unsure", "unclear", "unknown", "skip", "n/a", "na", "none", "nan", "null", "-", "–",
])  # fmt: skip
NEEDED = ("row_id", "stratum", "stratum_rows")
"""Columns of a file that was drawn, besides the judgements."""
SAID = ("right", "correct")
"""Columns for judgements: as files were written once, and as they are. `correct` is also what `mats evaluate` found:
beside it, `right` is a person's."""
USED = frozenset([
    *NEEDED, *SAID, "uri", "task", "question", "tag", "choices", "text", "start_s", "end_s", "only_channel", "order",
    "metrics", "judged_by",
])  # fmt: skip
"""What is read of a Parquet file, which may have large columns besides."""
ROW = "__row"
"""Key of a row's number in its file, as a spreadsheet counts where there is a heading."""
_THOUSANDS = re.compile(r"\d{1,3}([.,'’ \u00a0\u202f]\d{3})+")


def read_judged(
    uri: str,
    needed: Sequence[str] = NEEDED,
    setting: str = "judge",
    remedy: str = "give the file that --out wrote, with its columns, filled in",
) -> list[dict[str, Any]]:
    """The rows of a judged file (CSV, JSONL, XLSX, Parquet), by the lower-case names of its columns, each with ROW.

    needed: columns that it has; setting: who names the file. Raises SettingsError for one that cannot be read.
    """
    shown = storage.public_uri(uri)
    packed, ending = shown.lower().endswith(".gz"), shown.lower().removesuffix(".gz").rpartition(".")[2]
    readers: dict[str, Callable[[bytes], Iterator[dict[str, Any]]]] = {
        "csv": partial(_csv_rows, needed=needed[0]), "xlsx": _sheet_rows, "jsonl": _json_rows,
    }  # fmt: skip
    if ending not in (*readers, "parquet"):
        raise SettingsError(setting, f"{shown} is no .csv, .jsonl, .xlsx or .parquet", remedy)
    try:
        if ending == "parquet":
            rows = _parquet_rows(uri)
        else:
            data = storage.read_bytes(uri)
            rows = list(readers[ending](gzip.decompress(data) if packed else data))
    except Exception as error:  # openpyxl raises anything
        problem = f"{shown} cannot be read ({type(error).__name__}: {first_line(error)})"
        raise SettingsError(setting, problem, remedy) from None
    numbered = enumerate(rows, 2 if ending in ("csv", "xlsx") else 1)
    rows = [{**row, ROW: at} for at, row in numbered if any(value not in (None, "") for value in row.values())]
    lacking = [name for name in needed if not any(name in row for row in rows)]
    if lacking:
        problem = f"{shown} has no column {', '.join(lacking)}" if rows else f"{shown} has no rows"
        if not rows and ending == "xlsx":
            problem = f"no sheet of {shown} has rows and a column `{SAID[-1]}`"
        raise SettingsError(setting, problem, remedy)
    return rows


def said_in(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What stands in the column for judgements, one a row: in the first of SAID in which anything does."""
    name = next((name for name in SAID if any(row.get(name) not in (None, "") for row in rows)), SAID[0])
    return [row.get(name) for row in rows]


def same_text(written: Any, answer: Any) -> bool:
    """Whether an answer is the one in the file, whose spaces and first apostrophe a spreadsheet may have changed."""
    texts = ["" if each is None else str(plain_cell(each)).lstrip("'") for each in (written, answer)]
    return texts[0].split() == texts[1].split()


def _csv_rows(data: bytes, needed: str) -> Iterator[dict[str, Any]]:
    text = _decoded(data).lstrip("\ufeff")
    if text[:4].lower() == "sep=":  # what a spreadsheet may say first
        text = text.partition("\n")[2]
    delimiter = separator_of(text.partition("\n")[0].lower(), needed)
    csv.field_size_limit(1 << 24)
    yield from _named(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")  # an old spreadsheet's


def _json_rows(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.decode("utf-8-sig").splitlines():
        if line.strip():
            yield _lower(json.loads(line))


def _parquet_rows(uri: str) -> list[dict[str, Any]]:
    used = [name for name in parquet.schema(uri).names if _plain(name) in USED]
    # note: with none of them it is read whole, and its rows lack what they lack
    return [_lower(row) for row in parquet.read(uri, used or None).to_pylist()]


def _lower(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {_plain(name): value for name, value in row.items()}


def _plain(name: Any) -> str:
    return str(name or "").strip().lower()


def _sheet_rows(data: bytes) -> Iterator[dict[str, Any]]:
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # note: what a file says of its size may be wrong
        for row in _named(sheet.iter_rows(values_only=True)):
            if set(SAID) & set(row):  # else: a sheet of somebody's own
                yield row


def _named(lines: Any) -> Iterator[dict[str, Any]]:
    names: list[str] | None = None
    for line in lines:
        if names is None:
            names = list(map(_plain, line))
        else:
            yield dict(zip(names, map(of_cell, line), strict=False))


def number_of(value: Any) -> float | None:
    """A number as a spreadsheet may have written it (7.5, "7,5"); None for what is none, and below 0."""
    try:
        found = float(str(value).strip().lstrip("'").replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def whole_number(value: Any) -> int | None:
    """A whole number as a spreadsheet may have written it (7, 7.0, "7,0", "1.234", "1,234"); None for what is none."""
    text = str(value).strip().lstrip("'")
    if _THOUSANDS.fullmatch(text):
        return int(re.sub(r"\D", "", text))
    found = number_of(text)
    return None if found is None or not found.is_integer() else int(found)


def word_of(value: Any) -> str:
    """A judgement as it is looked up: "Yes!" and " YES " are "yes"; True, 1 and 1.0 are "1"."""
    if isinstance(value, (bool, int, float)):
        return f"{float(value):g}"
    text = (
        unicodedata.normalize("NFKC", str(value if value is not None else "")).replace("\ufe0f", "").strip().casefold()
    )
    bare = text.strip("'\"“”.!,;:()[]").strip()
    found = bare or text
    accents = "".join(each for each in unicodedata.normalize("NFD", found) if not unicodedata.combining(each))
    return {"1.0": "1", "0.0": "0", "1,0": "1", "0,0": "0"}.get(accents, accents)


def judgements(
    values: Sequence[Any], rows: Sequence[int], blank: str | None, setting: str = "judge"
) -> list[bool | None]:
    """What stands in the column `correct` → right, wrong, or None: not judged. rows: where each value stands. blank:
    what an empty cell means ("skip", "wrong", None: not said). Raises SettingsError for what is no judgement."""
    words = [word_of(value) for value in values]
    known = RIGHT | WRONG | TICKS | UNSURE | {CROSS}
    unknown = [(row, value) for row, word, value in zip(rows, words, values, strict=True) if word not in known]
    remedy = "write yes or no, 1 or 0, right or wrong; leave empty what is not judged"
    if unknown:
        row, value = unknown[0]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise SettingsError(setting, f'"{value}" in row {row}{more} is no judgement', remedy)
    said = set(words) - UNSURE
    for_right, for_wrong = bool(said & (RIGHT | TICKS)), bool(said & WRONG)
    if CROSS in said and for_right and for_wrong:
        problem = "x stands in the column `correct` beside words for right and for wrong, and may mean either"
        raise SettingsError(setting, problem, remedy)
    crossed = not for_right
    only_marks = bool(said) and not for_wrong and (said <= TICKS or said == {CROSS})
    if only_marks and "" in words and blank is None:
        marks = ", ".join(sorted(said))
        problem = f"the column `correct` holds only {marks} and empty cells: it does not tell wrong from not judged yet"
        raise SettingsError(setting, problem, "say what an empty cell means: --blank wrong, or --blank skip")
    meaning: dict[str, bool | None] = {CROSS: crossed, "": False if blank == "wrong" else None}
    meaning |= dict.fromkeys(RIGHT | TICKS, True) | dict.fromkeys(WRONG, False)
    return [meaning.get(word) for word in words]
