"""Made-up answers of a captioning run, sounds, and what a browser would find on a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from pipelines.pages import media

RATE = media.SAMPLE_RATE


def tone(hertz: float, seconds: float, level: float = 0.5) -> np.ndarray:
    """int16 [T] at 16 kHz."""
    return (32767 * level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


class Page(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        """Attributes of the tags of a name, of one class when given."""
        return [a for t, a in self.tags if t == tag and (not kind or kind in (a.get("class") or "").split())]


def row(row_id: int, uri: str, **facts: Any) -> dict[str, Any]:
    """A row of answers about one second of WAV."""
    base = {
        "row_id": row_id,
        "uri": uri,
        "format": "wav",
        "sample_rate": RATE,
        "channels": 1,
        "start_s": 0.0,
        "duration_s": 1.0,
        "decoded_s": 1.0,
        "task": "caption",
        "question": None,
        "text": "A dog barks.",
        "error_code": None,
        "error_message": None,
    }
    return base | facts


def error(row_id: int, uri: str, code: str, message: str) -> dict[str, Any]:
    """A row of a file that has no answer."""
    empty = dict.fromkeys(("format", "sample_rate", "channels", "duration_s", "decoded_s", "text"))
    return row(row_id, uri, error_code=code, error_message=message, **empty)


def write_run(output: Path, rows: list[dict[str, Any]], run: dict[str, Any] | None = None) -> str:
    """OUTPUT of a captioning run with these rows."""
    folder = output / "answers"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    for part in range(2):  # several part files, rows out of order
        pq.write_table(table.take(pa.array(range(part, len(rows), 2), pa.int64())), folder / f"part-{part}.parquet")
    if run is not None:
        (output / "_run.json").write_text(json.dumps(run))
    return str(output)


def wav(path: Path, samples: np.ndarray) -> str:
    """Write int16 [T] at 16 kHz; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return str(path)
