"""FAISS IVF indexes of unit vectors: learn the clusters, fill shards, merge shards on disk.

A vector is stored as it is (float32, float16) or in 8 bits a number between the lowest and the highest that the
training sample has there (int8). Rows are searched by what is stored, so that explaining and searching agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.errors import SettingsError

STORAGES = ("float32", "float16", "int8")
ROWS_A_CLUSTER = 39
"""Fewest rows a k-means centroid should have; FAISS's advice."""

# note: an index without vectors ends with this much: "ilar", lists, bytes a vector, "sprs", 0 (FAISS's own format)
_EMPTY_LISTS = 4 + 8 + 8 + 4 + 8


def default_clusters(rows: int) -> int:
    """√rows, but at least ROWS_A_CLUSTER rows each."""
    return max(min(round(math.sqrt(rows)), rows // ROWS_A_CLUSTER), 1)


def train_centroids(sample: np.ndarray, clusters: int, seed: int = 0, iterations: int = 10) -> np.ndarray:
    """k-means by L2 on unit rows [N, D]: centroids float32 [clusters, D], not normalised.

    Raises SettingsError for more clusters than rows.
    """
    import faiss

    if not 1 <= clusters <= len(sample):
        why = f"{clusters} clusters cannot be made of {len(sample)} rows"
        raise SettingsError("clusters", why, f"choose 1 to {len(sample)}")
    # note: FAISS draws at most so many rows a centroid by itself; what to learn from is the caller's choice
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": len(sample)}
    means = faiss.Kmeans(sample.shape[1], clusters, niter=iterations, seed=seed + 1, **points)
    means.train(sample)
    return np.ascontiguousarray(means.centroids, np.float32)


def empty_index(centroids: np.ndarray, storage: str, sample: np.ndarray) -> Any:
    """A trained FAISS index without vectors. sample: unit rows [N, D] that the ranges of int8 come from."""
    import faiss

    if storage not in STORAGES:
        raise SettingsError("storage", f'"{storage}" is no storage', f"choose one of {', '.join(STORAGES)}")
    clusters, dim = centroids.shape
    quantizer = faiss.IndexFlatL2(dim)
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    index: Any
    if storage == "float32":
        index = faiss.IndexIVFFlat(quantizer, dim, clusters, faiss.METRIC_L2)
    else:
        kinds = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, clusters, kinds[storage], faiss.METRIC_L2, False)
    index.train(np.ascontiguousarray(sample, np.float32))  # the centroids are given: only ranges are learnt
    return index


def fill(index: Any, rows: np.ndarray, first: int, block: int = 8192) -> None:
    """Add unit rows float32 [N, D] under the numbers first, first + 1, …"""
    for start in range(0, len(rows), block):
        part = np.ascontiguousarray(rows[start : start + block], np.float32)
        index.add_with_ids(part, np.arange(first + start, first + start + len(part), dtype=np.int64))


def to_bytes(index: Any) -> bytes:
    """An index as `from_bytes` takes it."""
    import faiss

    return faiss.serialize_index(index).tobytes()


def from_bytes(data: bytes) -> Any:
    """The index of `to_bytes`."""
    import faiss

    return faiss.deserialize_index(np.frombuffer(data, np.uint8))


def open_mapped(path: Path) -> Any:
    """An index whose vectors stay in the file, mapped into memory: all processes of a machine share one copy."""
    import faiss

    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    lists = faiss.downcast_InvertedLists(index.invlists)
    if hasattr(lists, "prefetch_nthread"):
        lists.prefetch_nthread = 0  # note: else every search starts 32 threads to read ahead
    return index


def merge_shards(empty: Any, shards: Sequence[Path], target: Path) -> str:
    """Write `target` as the index that holds every shard's vectors; returns its SHA-256.

    One cluster is in memory at a time, so the index may be larger than memory. All shards must have been filled from
    copies of `empty`. Raises OSError (a full disk), RuntimeError where FAISS's format is not the one known here.
    """
    import faiss

    opened = [open_mapped(path) for path in shards]
    sizes = np.zeros(empty.nlist, np.uint64)
    for index in opened:
        sizes += np.array([index.invlists.list_size(k) for k in range(empty.nlist)], np.uint64)
    empty.ntotal = int(sizes.sum())
    head = to_bytes(empty)
    empty.ntotal = 0
    if head[-_EMPTY_LISTS:][:4] != b"ilar" or head[-12:] != b"sprs" + bytes(8):
        raise RuntimeError(f"FAISS {faiss.__version__} writes inverted lists in a format that is not known here")
    count = np.uint64(empty.nlist)
    digest = hashlib.sha256()
    with target.open("wb") as file:

        def write(data: Any) -> None:
            file.write(data)
            digest.update(data)

        write(head[:-12] + b"full" + count.tobytes() + sizes.tobytes())
        for cluster in range(empty.nlist):
            lists = [(index.invlists, index.code_size, index.invlists.list_size(cluster)) for index in opened]
            for each, code_size, size in lists:
                if size:
                    codes = faiss.rev_swig_ptr(each.get_codes(cluster), size * code_size)
                    write(memoryview(np.ascontiguousarray(codes)))
            for each, _, size in lists:
                if size:
                    write(memoryview(np.ascontiguousarray(faiss.rev_swig_ptr(each.get_ids(cluster), size))))
    return digest.hexdigest()
