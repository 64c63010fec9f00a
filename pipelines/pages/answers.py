"""The answers of a captioning run as a page shows them: totals over all rows, and the rows of a few chosen files."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.uris import local_path, printable, public_uri
from pipelines.data import generations, parquet
from pipelines.output.record import read_run

COLUMNS = (
    *("row_id", "uri", "format", "sample_rate", "channels", "start_s", "duration_s", "decoded_s"),
    *("complete", "lost_s"),
    *("task", "question", "text", "segments", "error_code", "error_message"),
)


@dataclass
class Totals:
    """Counts over all answers, shown on the page or not."""

    rows: int = 0
    files: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    lost_s: float = 0.0


def find_answers(answers: str) -> tuple[str, dict[str, Any]]:
    """The folder of the answers, and `_run.json` (empty when there is none). Raises SettingsError for no answers."""
    parent = answers.rstrip("/").rpartition("/")[0] or "."
    for folder, output in ((storage.join(answers, "answers"), answers), (answers, parent)):
        if generations.files(folder):
            return folder, read_run(output) or {}
    problem = f"there are none in {public_uri(answers)}"
    raise SettingsError("answers", problem, "give the OUTPUT of `mats caption`, with answers in it")


def survey(folder: str, max_files: int) -> tuple[Totals, set[str]]:
    """Totals over all rows, and the URIs to show: those of the smallest hashes."""
    totals = Totals()
    seen: set[int] = set()
    heap: list[tuple[int, str]] = []
    for row in _rows(folder, ("uri", "decoded_s", "error_code", "complete", "lost_s")):
        totals.rows += 1
        totals.seconds += row.get("decoded_s") or 0.0
        totals.incomplete += row.get("complete") is False
        totals.lost_s += row.get("lost_s") or 0.0
        if row.get("error_code"):
            totals.errors[row["error_code"]] += 1
        uri = row.get("uri") or ""
        key = int.from_bytes(blake2b(uri.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        if key not in seen:
            seen.add(key)
            heapq.heappush(heap, (-key, uri))
            if len(heap) > max_files:
                heapq.heappop(heap)
    totals.files = len(seen)
    return totals, {uri for _, uri in heap}


def read_files(folder: str, chosen: set[str]) -> list[dict[str, Any]]:
    """The chosen files with their rows, in the order of the work list."""
    by_uri: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(folder, COLUMNS):
        if (row.get("uri") or "") in chosen:
            by_uri.setdefault(row.get("uri") or "", []).append(row)
    for parts in by_uri.values():
        parts.sort(key=lambda row: (row.get("start_s") or 0.0, row.get("row_id") or 0))
    order = sorted(by_uri.items(), key=lambda item: min(row.get("row_id") or 0 for row in item[1]))
    return [{"uri": uri, "parts": parts} for uri, parts in order]


def _rows(folder: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet folder; columns that are not there are left out."""
    for info in generations.files(folder):
        for batch in parquet.batches(info.uri, 8192, columns):
            yield from batch.to_pylist()


def path_text(uri: str) -> str:
    """A URI as path text (a local name that is not UTF-8 with Python's surrogates), without secrets."""
    path = local_path(uri)
    return public_uri(uri) if path is None else os.fsdecode(path)


def printable_path(name: str) -> str:
    """Path text as a page can hold it: percent-encoded where it is not UTF-8."""
    return printable(os.fsencode(name))
