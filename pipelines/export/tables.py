"""csv, xlsx, jsonl, and records as the authors' code and `mats train` read them. Each writes rows as they come."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import math
from collections.abc import Iterable
from typing import IO, Any

from pipelines.export.places import shown
from pipelines.export.rows import Row
from pipelines.pages.cells import plain_cell

SHEET_ROWS = 1_048_576
"""Rows of one sheet, its heading included, that a spreadsheet reads."""


def write_csv(file: IO[bytes], rows: Iterable[Row], columns: list[str]) -> int:
    """Comma-separated, UTF-8; returns how many rows. What is nested is JSON, and no cell is a formula."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow([plain_cell(name) for name in columns])
    count = 0
    for row in rows:
        count += 1
        writer.writerow([plain_cell(_cell(row.get(name))) for name in columns])
    text.flush()
    text.detach()
    return count


def write_xlsx(file: IO[bytes], rows: Iterable[Row], columns: list[str]) -> int:
    """A workbook; returns how many rows. A sheet that is full is followed by another, and no cell is a formula."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    count, sheet = 0, None

    def cells(values: Iterable[Any]) -> list[Any]:
        found = []
        for value in values:
            cell = WriteOnlyCell(sheet, plain_cell(value))
            if isinstance(value, str):
                cell.data_type = "s"  # note: else a text that begins with "=" or "#" is taken for something else
            found.append(cell)
        return found

    for count, row in enumerate(rows, 1):
        if (count - 1) % (SHEET_ROWS - 1) == 0:
            sheet = book.create_sheet()
            sheet.append(cells(columns))
        assert sheet is not None
        sheet.append(cells(_sheet_value(row.get(name)) for name in columns))
    if sheet is None:
        sheet = book.create_sheet()
        sheet.append(cells(columns))
    book.save(file)
    return count


def write_jsonl(file: IO[bytes], rows: Iterable[Row], columns: list[str]) -> int:
    """One JSON object a line; returns how many."""
    count = 0
    for row in rows:
        count += 1
        file.write(json_line({name: row.get(name) for name in columns}))
    return count


def write_records(file: IO[bytes], rows: Iterable[Row], text: str) -> int:
    """A JSON list of records (caption, instruction, output, task, tag, source, id); returns how many.

    Rows without an answer have none. The answer is the output, and the caption where that was asked for; a list's own
    column `caption` or `truth` is the caption of other tasks.
    """
    count = 0
    file.write(b"[")
    for row in rows:
        answer = row.get(text)
        if row.get("error_code") or not answer:
            continue
        caption = row.get("caption") or row.get("truth") or answer
        record = {
            "caption": caption, "instruction": row.get("question") or "", "output": answer,
            "task": row.get("task") or "caption", "tag": row.get("tag") or "", "source": shown(row["uri"]),
            "id": row.get("chunk_id") or str(row.get("row_id")),
        }  # fmt: skip
        file.write((b",\n" if count else b"\n") + json_line(record).rstrip(b"\n"))
        count += 1
    file.write(b"\n]\n")
    return count


def json_line(values: dict[str, Any]) -> bytes:
    """A JSON object and a line's end. Texts that are no UTF-8 keep their bytes as escapes; NaN is null."""
    return (json.dumps(_plain(values), ensure_ascii=True, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def _cell(value: Any) -> Any:
    """A value as a cell has it: what is nested as JSON."""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(_plain(value), ensure_ascii=False)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _sheet_value(value: Any) -> Any:
    """A value as openpyxl takes it."""
    value = _cell(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)  # a sheet has no such number
    if isinstance(value, (datetime.datetime, datetime.time)) and value.tzinfo is not None:
        return value.isoformat()
    known = (str, int, float, bool, datetime.date, datetime.datetime, datetime.time, datetime.timedelta)
    return value if value is None or isinstance(value, known) else str(value)
