"""What the workers of `mats build-memory` do: read pieces of an embeddings table, choose rows, fill a shard.

Which rows are taken, and which k-means learns from, is a function of (seed, caption_id) alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mats_core import storage
from mats_core.memory import faiss_index
from pipelines.data import parquet

COUNT_SCHEMA = pa.schema({"number": pa.int64(), "rows": pa.int64(), "draws": pa.list_(pa.uint64())})
ALL = 2**64 - 1
"""A threshold that every row's draw is below."""


@dataclass(frozen=True)
class Piece:
    """Rows start … stop-1 of a part file."""

    uri: str
    start: int
    stop: int


@dataclass(frozen=True)
class Selection:
    """Rows of these sources (None: all) whose draw for `seed` is at most `threshold`."""

    sources: tuple[str, ...] | None
    seed: int
    threshold: int = ALL


def draws(ids: list[str], seed: int, salt: str) -> np.ndarray:
    """A uniform uint64 a caption_id, the same in every run."""
    key = f"{salt}:{seed}".encode()
    found = (hashlib.blake2b(each.encode(), digest_size=8, key=key).digest() for each in ids)
    return np.frombuffer(b"".join(found), "<u8")


def read_piece(piece: Piece, columns: list[str]) -> Iterator[pa.Table]:
    """The piece's rows, a row group or less at a time."""
    with parquet.opened(piece.uri, parquet.READ_AHEAD) as part:
        at = 0
        for group in range(part.metadata.num_row_groups):
            rows = part.metadata.row_group(group).num_rows
            if at < piece.stop and at + rows > piece.start:
                start, stop = max(piece.start - at, 0), min(piece.stop - at, rows)
                yield part.read_row_group(group, columns=columns).slice(start, stop - start)
            at += rows


def select_rows(table: pa.Table, selection: Selection) -> pa.Table:
    """The rows of `table` (caption_id, sources) that are taken."""
    if selection.sources is not None:
        wanted = pa.array(selection.sources, pa.string())
        flat, parents = pc.list_flatten(table["sources"]), pc.list_parent_indices(table["sources"])
        rows = np.unique(np.asarray(pc.filter(parents, pc.is_in(flat, value_set=wanted))))
        table = table.take(pa.array(rows, pa.int64()))
    return _below(table, selection.seed, "cap", selection.threshold)


def _below(table: pa.Table, seed: int, salt: str, threshold: int) -> pa.Table:
    """The rows whose draw is at most `threshold`."""
    if threshold == ALL:
        return table
    return table.filter(pa.array(draws(table["caption_id"].to_pylist(), seed, salt) <= np.uint64(threshold)))


def count_piece(work: pa.Table, selection: Selection, with_draws: bool) -> pa.Table:
    """How many rows of each piece are taken, and their draws where a cap is still to be found."""
    found = []
    for row in work.to_pylist():
        read = read_piece(Piece(**row["piece"]), ["caption_id", "sources"])
        ids = [each for table in read for each in select_rows(table, selection)["caption_id"].to_pylist()]
        own = draws(ids if with_draws else [], selection.seed, "cap")
        found.append({"number": row["number"], "rows": len(ids), "draws": own})
    return pa.Table.from_pylist(found, COUNT_SCHEMA)


def sample_piece(work: pa.Table, selection: Selection, threshold: int) -> Iterator[pa.Table]:
    """Embeddings of the taken rows whose second draw is at most `threshold`, with the number of their piece."""
    for row in work.to_pylist():
        for table in read_piece(Piece(**row["piece"]), ["caption_id", "sources", "embedding"]):
            table = _below(select_rows(table, selection), selection.seed, "sample", threshold)
            if len(table):
                yield pa.table({"number": [row["number"]] * len(table), "embedding": table["embedding"]})


def fill_shard(work: pa.Table, selection: Selection, empty: bytes, folder: str) -> pa.Table:
    """Write each shard's index and its captions below `folder`; `work` tells its pieces and its first row number."""
    import faiss

    faiss.omp_set_num_threads(1)
    done = []
    for row in work.to_pylist():
        index = faiss_index.from_bytes(empty)
        captions: list[pa.Table] = []
        first = row["first"]
        for piece in row["pieces"]:
            for table in read_piece(Piece(**piece), ["caption_id", "caption", "sources", "embedding"]):
                table = select_rows(table, selection)
                faiss_index.fill(index, unit_rows(table["embedding"]), first)
                first += len(table)
                captions.append(_captions(table, selection.sources))
        parquet.write(shard_uri(folder, row["number"], "captions.parquet"), pa.concat_tables(captions))
        storage.write_bytes(shard_uri(folder, row["number"], "faiss"), faiss_index.to_bytes(index))
        done.append({"number": row["number"], "rows": first - row["first"]})
    return pa.Table.from_pylist(done)


def shard_uri(folder: str, number: int, ending: str) -> str:
    """A file of a shard."""
    return storage.join(folder, f"shard-{number:05d}.{ending}")


def unit_rows(column: Any) -> np.ndarray:
    """float32 [N, D] of unit length, of a fixed-size list column. ValueError for NaN or infinity."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    dim = flat.type.list_size
    rows = np.asarray(flat.flatten()).reshape(-1, dim).astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("an embedding holds NaN or infinity")
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _captions(table: pa.Table, sources: tuple[str, ...] | None) -> pa.Table:
    """Caption and one source of each row: the first that was asked for."""
    told = table["sources"].to_pylist()
    first = [next((each for each in found if sources is None or each in sources), "") for found in told]
    return pa.table({"caption": table["caption"], "source": pa.array(first, pa.string())})
