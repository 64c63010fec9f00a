"""Every file of a run in the page itself, packed, so that its search finds what no card shows."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterable
from typing import Any


def packed(files: Iterable[dict[str, Any]]) -> str:
    """Files as `report.py` describes them → a JSON line each, gzip, base64: a million answers take some ten megabytes.

    The keys are short, since the page's script reads them: n name, h link, l length (s), f F1, s label slips, b broken,
    g gone, u its least confidence, c on which page it has a card, p parts: [start, end, question, answer, truth, error
    code, message], and where there is one its confidence, with 1 behind where the answer was held back.
    """
    memory = io.BytesIO()
    with gzip.GzipFile(fileobj=memory, mode="wb", compresslevel=6, mtime=0) as file:
        for each in files:
            file.write(json.dumps(_entry(each), ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
    return base64.b64encode(memory.getvalue()).decode("ascii")


def _entry(file: dict[str, Any]) -> dict[str, Any]:
    parts = [
        [
            round(part["start"], 2),
            round(part["start"] + (part["length"] or 0.0), 2),
            part.get("question") or "",
            (part.get("text") if part.get("text") is not None else part.get("text_unsure")) or "",
            part.get("truth") or "",
            part.get("error_code") or "",
            part.get("error_message") or "",
            *([] if part.get("confidence") is None else [round(part["confidence"], 3)]),
            *([1] if part.get("confidence") is not None and part.get("text_unsure") is not None else []),
        ]
        for part in file["parts"]
    ]
    name = f"{file['folder']}/{file['name']}" if file["folder"] else file["name"]
    facts = {
        "o": file["order"], "l": file["length"] and round(file["length"], 2), "s": file["slips"],
        "b": int(file["broken"]), "g": int(file["gone"]), "h": file["link"], "c": file.get("card"),
    }  # fmt: skip
    told = {key: value for key, value in facts.items() if value}
    told |= {} if file["sure"] is None else {"u": round(file["sure"], 3)}
    return told | {"n": name, "p": parts} | ({} if file["f1"] is None else {"f": round(file["f1"], 3)})
