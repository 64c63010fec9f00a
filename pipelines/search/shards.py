"""What the workers of an index's build do: draw a sample for k-means, and fill one shard from part files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.memory import faiss_index
from pipelines.search.reading import read_windows


@dataclass(frozen=True)
class Source:
    """Where windows come from: the folder of part files (URI and name) and how long a window is."""

    uri: str
    folder: str
    window_s: float

    def part(self, name: str) -> str:
        """URI of a part file."""
        return storage.join(self.uri, *name.split("/"))


def sample_part(source: Source, part: str, share: float) -> np.ndarray:
    """About `share` of the unit vectors of a part, float32 [N, D]: the same ones in every build."""
    draw = np.random.default_rng(list(part.encode()))
    found = read_windows(source.part(part), source.folder, source.window_s)
    taken = [vectors[draw.random(len(vectors)) < share] for _, vectors in found]
    taken = [each for each in taken if len(each)]
    return np.concatenate(taken) if taken else np.empty((0, 0), np.float32)


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors [N, D] with the mean [D] of all sounds taken out, unit again: what the index holds."""
    moved = np.asarray(vectors - mean, np.float32)
    moved /= np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-12)
    return moved


def fill_shard(source: Source, parts: Sequence[str], empty: bytes, mean: np.ndarray, target: str) -> dict[str, int]:
    """Write `target`.faiss and `target`.arrow, vectors and rows of these parts; how many windows and rows they are.

    Vector i of the index is window i of the rows: those in their column `windows`, one after the other.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    index: Any = faiss_index.from_bytes(empty)
    tables: list[pa.Table] = []
    for part in parts:
        for rows, vectors in read_windows(source.part(part), source.folder, source.window_s):
            if len(vectors):
                faiss_index.fill(index, centred(vectors, mean), int(index.ntotal))
            tables.append(rows)
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    storage.write_bytes(f"{target}.faiss", faiss_index.to_bytes(index))
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    storage.write_bytes(f"{target}.arrow", buffer.getvalue())
    return {"windows": int(index.ntotal), "rows": len(table)}
