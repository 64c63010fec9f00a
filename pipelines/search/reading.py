"""The windows of a run: which folder holds them, and of each part file the rows, times and unit vectors."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data import generations, parquet
from pipelines.output.record import read_run

FOLDERS = {"embeddings": "windows", "answers": "embedding"}
"""Folder of rows → the column of their vectors: every window's own, or one a chunk."""
LEFT_OUT = ("windows", "embedding", "neighbors")
"""Columns that are not kept beside the index: they are most of a table's bytes."""
TIMES = pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64())]))
ROWS_AT_ONCE = 512


def vectors_folder(run: str) -> str:
    """The folder in OUTPUT that has embeddings of sounds; SettingsError where there is none."""
    shown = storage.public_uri(run)
    remedy = "give the OUTPUT of `mats embed-audio`, or of `mats caption --with-embedding`"
    for folder, column in FOLDERS.items():
        found = generations.files(storage.join(run, folder))
        if found:
            if column in parquet.schema(found[0].uri).names:
                return folder
            raise SettingsError("run", f"{shown} holds answers without their embeddings", _to_embed(run))
    lacks = "holds no embeddings of sounds" if storage.is_dir(run) else "is no folder that exists"
    raise SettingsError("run", f"{shown} {lacks}", remedy)


def _to_embed(run: str) -> str:
    """The command that embeds the sounds that a run has answered, into a folder beside it."""
    told = (read_run(run) or {}).get("settings") or {}
    there = f"{storage.public_uri(run).rstrip('/')}-embedded"
    words = ["mats", "embed-audio", str(told.get("input") or "INPUT"), there]
    words += ["--model", model] if (model := str(told.get("model") or "builtin")) != "builtin" else []
    return f"embed its sounds with `{shlex.join(words)}` and search {there}"


def windows_in(uri: str, folder: str) -> int:
    """About how many windows a part file has: by its footer, in which an empty list counts as one."""
    path = "windows.list.element.weight" if folder == "embeddings" else "row_id"
    with parquet.opened(uri) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    columns = (group.column(at) for group in groups for at in range(group.num_columns))
    return sum(column.num_values for column in columns if column.path_in_schema == path)


def read_windows(uri: str, folder: str, window_s: float) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """(rows, vectors float32 [N, D]) of a part file, a batch at a time.

    The rows have their columns but LEFT_OUT, and `windows`: the times of each window in its file, in seconds. Rows
    without sound have none. N is how many windows all rows of the batch have. Raises StorageError.
    """
    for batch in parquet.batches(uri, ROWS_AT_ONCE):
        table = pa.Table.from_batches([batch])
        kept = table.drop_columns([name for name in LEFT_OUT if name in table.schema.names])
        starts = _numbers(table, "start_s", 0.0)  # of chunks, in their files
        heard = _numbers(table, "decoded_s", np.nan)
        if folder == "embeddings":
            counts, vectors, offsets = _of_windows(table["windows"].combine_chunks())
            seconds: float | np.ndarray = window_s
        else:
            counts, vectors = _of_chunks(table["embedding"].combine_chunks())
            offsets, seconds = np.zeros(int(counts.sum())), np.inf
        row = np.repeat(np.arange(len(table)), counts)
        begins = starts[row] + offsets
        ends = np.fmin(begins + seconds, starts[row] + heard[row])
        yield kept.append_column("windows", _times(counts, begins, np.maximum(ends, begins))), _unit(vectors)


def _numbers(table: pa.Table, name: str, missing: float) -> np.ndarray:
    """float64 [N] of a column, with `missing` where there is no number."""
    if name not in table.schema.names:
        return np.full(len(table), missing)
    return table[name].cast(pa.float64()).fill_null(missing).to_numpy()


def _of_windows(column: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(windows a row [N], vectors [W, D], starts in seconds of the chunk [W]) of a list of windows."""
    counts = np.asarray(column.value_lengths().fill_null(0))
    inside = column.flatten()
    embedding = inside.field("embedding")
    return counts, _matrix(embedding.flatten(), len(inside)), np.asarray(inside.field("start_s"), np.float64)


def _of_chunks(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """(1 where there is a vector, else 0 [N], vectors [W, D])."""
    counts = np.minimum(np.asarray(column.value_lengths().fill_null(0)), 1)
    return counts, _matrix(column.flatten(), int(counts.sum()))


def _matrix(flat: Any, rows: int) -> np.ndarray:
    """The numbers of vectors of one length as float32 [rows, D]. Raises SettingsError for others."""
    numbers = np.asarray(flat, np.float32)
    if rows and len(numbers) % rows:
        raise SettingsError("run", "its embeddings are of different lengths", "embed the archive again")
    return numbers.reshape(rows, -1) if rows else np.empty((0, 0), np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise SettingsError("run", "its embeddings hold NaN or infinity", "embed the archive again")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) if len(vectors) else vectors


def _times(counts: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    inside = pa.StructArray.from_arrays([pa.array(begins), pa.array(ends)], ["start_s", "end_s"])
    return pa.ListArray.from_arrays(pa.array(offsets), inside).cast(TIMES)
