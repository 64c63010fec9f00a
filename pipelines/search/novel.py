"""Windows that are far from all others: what is in an archive once, or new in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.cluster.progress import Progress
from pipelines.search.index import Index

NEIGHBORS = 5
BESIDE = 32
"""Windows that are looked at for NEIGHBORS of other files: those of a window's own file are no others."""
AT_ONCE = 256
PROBES = 4


def distances_to_others(
    index: Index, windows: np.ndarray, reference: Index | None = None, tell: Callable[[Progress], None] | None = None
) -> np.ndarray:
    """float32 [N]: of each window, 1 − the mean cosine to its NEIGHBORS nearest windows of other files.

    reference: look among the windows of that run, all of them, and not of this one. A file that lies in the same place
    is the same one.
    """
    among = reference or index
    names = _names(index, reference)
    own, others = names if reference is not None else (names[0], names[0])
    probe = among.standing.clusters if among.windows <= AT_ONCE * BESIDE else PROBES
    found = np.empty(len(windows), np.float32)
    for start in range(0, len(windows), AT_ONCE):
        asked = windows[start : start + AT_ONCE]
        vectors = index.vectors(asked)
        if reference is not None:
            vectors = _moved(vectors, index, reference)
        scores, near = among.search(vectors, min(BESIDE + NEIGHBORS, among.windows), probe=probe)
        files = own[index.row_of(asked)]
        other = (near >= 0) & (others[among.row_of(np.maximum(near, 0))] != files[:, None])
        rank = np.cumsum(other, axis=1)
        taken = other & (rank <= NEIGHBORS)
        # note: all that is near may be of its own file; others are then no nearer than the last of these
        least = np.where(near >= 0, scores, np.inf).min(axis=1)
        sums = np.where(taken, scores, 0.0).sum(axis=1) + (NEIGHBORS - taken.sum(axis=1)) * least
        found[start : start + len(asked)] = 1.0 - sums / NEIGHBORS
        if tell is not None:
            tell(Progress("run", start + len(asked), len(windows)))
    return found


def _moved(vectors: np.ndarray, index: Index, reference: Index) -> np.ndarray:
    """Vectors of one index in the space of another. note: the index keeps directions alone, so that where the means of
    two runs lie far apart this is an estimate; for runs of one archive they do not."""
    moved = vectors + (index.mean - reference.mean)
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)


def _names(*indexes: Index | None) -> list[np.ndarray]:
    """A number a file, the same for the same URI in all of them: int64 [rows] each."""
    import pyarrow as pa

    columns = [index.rows["uri"] for index in indexes if index is not None]
    codes = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).dictionary_encode()
    numbers = np.asarray(codes.unify_dictionaries().combine_chunks().indices.fill_null(-1), np.int64)
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])
