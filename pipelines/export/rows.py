"""The rows of a run in order, a chunk or a file each, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.audio.levels import Levels, joined_levels
from mats_core.errors import SettingsError
from pipelines.compact import in_order, read_part
from pipelines.data import generations
from pipelines.data.results import pruned_rows
from pipelines.data.schemas import with_column
from pipelines.output.corrections import ADDED, OF_OWN_TEXT, SCORES, Correction, corrected
from pipelines.search.reading import LEFT_OUT
from pipelines.search.where import rows_where

FOLDERS = ("answers", "embeddings")
Row = dict[str, Any]
Said = Mapping[int, Correction]


def rows_folder(run: str) -> str:
    """The folder of a run's rows; SettingsError where it has none."""
    for name in FOLDERS:
        folder = storage.join(run, name)
        if generations.files(folder):
            return folder
    problem = f"{storage.public_uri(run)} {'holds no rows' if storage.is_dir(run) else 'is no folder that exists'}"
    raise SettingsError("run", problem, "give the OUTPUT of `mats caption` or `mats embed-audio`")


def columns_of(run: str, said: Said | None = None) -> list[str]:
    """The columns of the rows, in order; with those that tell of corrections where there are some."""
    parts = [read_part(info.uri) for info in generations.files(rows_folder(run))]
    names = [name for part in parts for name in part.schema.names] + list(ADDED if said else ())
    return [name for name in dict.fromkeys(names) if name not in LEFT_OUT]


CHOSEN = "__chosen"
"""Column of `read_rows(marked=True)`."""


def read_rows(
    run: str, where: str | None = None, per: str = "chunk", marked: bool = False, said: Said | None = None
) -> Iterator[Row]:
    """The rows in order of `row_id`, without those that were pruned; `per` "file" joins a file's chunks,
    "window" gives a row a segment.

    where: SQL over a row's columns. said: corrections, whose texts take the place of the run's own; segments that said
    otherwise go. marked: all rows, with whether `where` holds in CHOSEN. Raises SettingsError.
    """
    chunks = (
        row
        for table in _tables(run, where, marked, said or {})
        for batch in table.to_batches(1024)
        for row in batch.to_pylist()
    )
    if per == "window":
        return (window for row in chunks for window in windows_of(row))
    return chunks if per == "chunk" else map(joined, by_file(chunks))


def _tables(run: str, where: str | None, marked: bool, said: Said) -> Iterator[pa.Table]:
    parts = sorted(read_part(info.uri) for info in generations.files(rows_folder(run)))
    for table in in_order(parts, pruned_rows(run)):
        table = table.drop_columns([name for name in LEFT_OUT if name in table.schema.names])
        table = corrected(table, said)
        chosen = np.ones(len(table), bool) if where is None else rows_where(table, where)
        table = table.append_column(CHOSEN, pa.array(chosen)) if marked else table.filter(pa.array(chosen))
        yield _as_written(table)


def _as_written(table: pa.Table) -> pa.Table:
    """Numbers in float32 as the shortest ones that they may stand for: 0.996, and not 0.9959999918937683."""
    for name in table.schema.names:
        if pa.types.is_float32(table.schema.field(name).type):
            table = with_column(table, name, table[name].cast(pa.string()).cast(pa.float64()), pa.float64())
    return table


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
    whole = {name: None for name in OF_OWN_TEXT if name in row}
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
    for name in SCORES:  # a file is as sure as the least sure of its answers
        known = [row[name] for row in chunks if row.get(name) is not None]
        if name in whole:
            whole[name] = min(known) if known else None
    if "segments" in whole:
        whole["segments"] = [each for row in chunks for each in row["segments"] or ()] or None
    if "complete" in whole:
        whole["complete"] = all(row["complete"] is not False for row in chunks)
    whole |= _said(chunks) if "corrected_by" in whole else {}
    whole |= {name: value for name, value in _level(chunks).items() if name in whole}
    failed = next((row for row in chunks if row.get("error_code")), None)
    for name in ("error_code", "error_message"):
        whole[name] = failed[name] if failed else None
    return whole


def _said(chunks: list[Row]) -> Row:
    """What was said of a file's chunks, together: all names and labels, the last moment, a mark that all share."""
    names = dict.fromkeys(row["corrected_by"] for row in chunks if row["corrected_by"])
    labels = dict.fromkeys(label for row in chunks for label in row["corrected_labels"] or ())
    own = [row["corrected_from"] if row["corrected_from"] is not None else row.get("text") for row in chunks]
    marks = {row["corrected_mark"] for row in chunks}
    changed = any(row["corrected_from"] is not None for row in chunks)
    return {
        "corrected_from": "\n".join(text for text in own if text is not None) if changed else None,
        "corrected_mark": marks.pop() if len(marks) == 1 else None,
        "corrected_labels": list(labels) or None,
        "corrected_by": ", ".join(names) or None,
        "corrected_at": max((row["corrected_at"] for row in chunks if row["corrected_at"]), default=None),
    }


def _level(chunks: list[Row]) -> Row:
    """How loud a file is, by its chunks that were heard, each by its seconds."""
    heard = [row for row in chunks if row.get("rms_dbfs") is not None and row.get("decoded_s")]
    if not heard:
        return {}
    parts = [(Levels(row["peak_dbfs"], row["rms_dbfs"], row["clipped"]), row["decoded_s"]) for row in heard]
    whole = joined_levels(parts)
    return {**vars(whole), "silent": all(row["silent"] for row in heard)}


def length_of(row: Row) -> float | None:
    """Seconds of a row's sound: what was heard, else what its header says; None where neither is known."""
    for name in ("decoded_s", "duration_s"):
        if row.get(name):
            return float(row[name])
    return None
