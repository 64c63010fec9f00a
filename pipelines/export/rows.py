"""The rows of a run in order, a chunk or a file each, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.compact import in_order, read_part
from pipelines.data import generations
from pipelines.data.results import pruned_rows
from pipelines.search.reading import LEFT_OUT
from pipelines.search.where import rows_where

FOLDERS = ("answers", "embeddings")
Row = dict[str, Any]


def rows_folder(run: str) -> str:
    """The folder of a run's rows; SettingsError where it has none."""
    for name in FOLDERS:
        folder = storage.join(run, name)
        if generations.files(folder):
            return folder
    problem = f"{storage.public_uri(run)} {'holds no rows' if storage.is_dir(run) else 'is no folder that exists'}"
    raise SettingsError("run", problem, "give the OUTPUT of `mats caption` or `mats embed-audio`")


def columns_of(run: str) -> list[str]:
    """The columns of the rows, in order."""
    parts = [read_part(info.uri) for info in generations.files(rows_folder(run))]
    names = [name for part in parts for name in part.schema.names]
    return [name for name in dict.fromkeys(names) if name not in LEFT_OUT]


CHOSEN = "__chosen"
"""Column of `read_rows(marked=True)`."""


def read_rows(run: str, where: str | None = None, per: str = "chunk", marked: bool = False) -> Iterator[Row]:
    """The rows in order of `row_id`, without those that were pruned; `per` "file" joins a file's chunks,
    "window" gives a row a segment.

    where: SQL over a row's columns. marked: all rows, with whether `where` holds in CHOSEN. Raises SettingsError.
    """
    chunks = (
        row for table in _tables(run, where, marked) for batch in table.to_batches(1024) for row in batch.to_pylist()
    )
    if per == "window":
        return (window for row in chunks for window in windows_of(row))
    return chunks if per == "chunk" else map(joined, by_file(chunks))


def _tables(run: str, where: str | None, marked: bool) -> Iterator[pa.Table]:
    parts = sorted(read_part(info.uri) for info in generations.files(rows_folder(run)))
    for table in in_order(parts, pruned_rows(run)):
        table = table.drop_columns([name for name in LEFT_OUT if name in table.schema.names])
        chosen = np.ones(len(table), bool) if where is None else rows_where(table, where)
        yield table.append_column(CHOSEN, pa.array(chosen)) if marked else table.filter(pa.array(chosen))


OF_WHOLE = ("logprob", "clap_score", "confidence", "text_unsure")
"""What is told of a row's text, and of none of its windows."""


def by_file(chunks: Iterator[Row]) -> Iterator[list[Row]]:
    """The chunks of one request to one file together: they come one after the other."""
    together: list[Row] = []
    for row in chunks:
        same = ("uri", "task", "question", "tag")
        if together and (
            any(row.get(name) != together[-1].get(name) for name in same)
            or (row.get("start_s") or 0.0) <= (together[-1].get("start_s") or 0.0)
        ):
            yield together
            together = []
        together.append(row)
    if together:
        yield together


def windows_of(row: Row) -> list[Row]:
    """A chunk's segments as rows; the chunk where it has none."""
    told = row.get("segments")
    if not told:
        return [row]
    times = ((each, each["end_s"] - each["start_s"]) for each in told)
    whole = {name: None for name in OF_WHOLE if name in row}
    return [
        {
            **row,
            **whole,
            "start_s": each["start_s"],
            "duration_s": long,
            "decoded_s": long,
            "text": each["text"],
            "segments": None,
        }
        for each, long in times
    ]


def joined(chunks: list[Row]) -> Row:
    """A file's chunks as one row: answers a line each, as `mats ask` joins them, all segments, its whole length."""
    whole = dict(chunks[0])
    for name in ("duration_s", "decoded_s", "lost_s"):
        known = [row[name] for row in chunks if row.get(name) is not None]
        if name in whole:
            whole[name] = sum(known) if known else None
    for name in ("text", "text_unsure"):
        told = [row[name] for row in chunks if row.get(name) is not None]
        if name in whole:
            whole[name] = "\n".join(told) if told else None
    for name in OF_WHOLE[:3]:  # a file is as sure as the least sure of its answers
        known = [row[name] for row in chunks if row.get(name) is not None]
        if name in whole:
            whole[name] = min(known) if known else None
    if "segments" in whole:
        whole["segments"] = [each for row in chunks for each in row["segments"] or ()] or None
    if "complete" in whole:
        whole["complete"] = all(row["complete"] is not False for row in chunks)
    whole |= {name: value for name, value in _level(chunks).items() if name in whole}
    failed = next((row for row in chunks if row.get("error_code")), None)
    for name in ("error_code", "error_message"):
        whole[name] = failed[name] if failed else None
    return whole


def _level(chunks: list[Row]) -> Row:
    """How loud a file is, by its chunks that were heard, each by its seconds."""
    heard = [row for row in chunks if row.get("rms_dbfs") is not None and row.get("decoded_s")]
    if not heard:
        return {}
    seconds = sum(row["decoded_s"] for row in heard)
    power = sum(10.0 ** (row["rms_dbfs"] / 10.0) * row["decoded_s"] for row in heard) / seconds
    return {
        "peak_dbfs": max(row["peak_dbfs"] for row in heard),
        "rms_dbfs": 10.0 * math.log10(power),
        "clipped": sum(row["clipped"] * row["decoded_s"] for row in heard) / seconds,
        "silent": all(row["silent"] for row in heard),
    }


def length_of(row: Row) -> float | None:
    """Seconds of a row's sound: what was heard, else what its header says; None where neither is known."""
    for name in ("decoded_s", "duration_s"):
        if row.get(name):
            return float(row[name])
    return None
