"""FAISS IVF indexes of unit vectors: learn the clusters, fill shards, merge shards on disk.

A vector is stored as it is (float32, float16) or in 8 bits a number between the lowest and the highest that the
training sample has there (int8). Rows are searched by what is stored, so that explaining and searching agree.
"""

from __future__ import annotations

import hashlib
import math
import struct
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


_HEADER = "4s i q 16x ? i Q 8x 4s i q 16x ? i Q"  # of an index, then of the centroids inside it
_NUMBERS = {4: (2, 0), 0: (1, 2)}  # FAISS's float16 and int8: bytes a number, what it learns a dimension


def check_layout(path: Path) -> None:
    """ValueError unless a file is an index as `merge_shards` and `SantaMemory.save` write it, with sizes that fit one
    another and the file: FAISS makes room for what a file says, whatever it is."""
    size = path.stat().st_size
    with path.open("rb") as file:

        def take(layout: str) -> tuple[Any, ...]:
            data = file.read(struct.calcsize(f"<{layout}"))
            if len(data) != struct.calcsize(f"<{layout}"):
                raise ValueError("its index is cut short")
            return struct.unpack(f"<{layout}", data)

        kind, dim, count, trained, metric, clusters, inner, *centroids = take(_HEADER)
        if kind not in (b"IwFl", b"IwSq") or inner != b"IxF2" or not trained or metric != 1:
            raise ValueError(f"its index is of a kind that is not read here: {kind!r} over {inner!r}")
        said = f"its index says {count} vectors of {dim} numbers in {clusters} clusters, and has {size} bytes"
        if min(dim, clusters, count + 1) < 1 or dim * clusters * 4 + count * (dim + 8) > size:
            raise ValueError(said)
        if centroids != [dim, clusters, True, 1, dim * clusters]:
            raise ValueError("the centroids of its index do not fit it")
        file.seek(dim * clusters * 4, 1)
        direct, rows = take("b Q")
        width, by_residual = 4, False
        if kind == b"IwSq":
            number, dims, code, trained_numbers = take("i 8x Q Q Q")
            width, ranges = _NUMBERS.get(number, (0, 0))
            if (dims, code, trained_numbers) != (dim, dim * width, dim * ranges):
                raise ValueError("the numbers of its index are of a kind that is not read here")
            file.seek(trained_numbers * 4, 1)
            again, by_residual = take("Q ?")
            width = width if again == code else 0
        mark, lists, code, form, numbers = take("4s Q Q 4s Q")
        plain = (direct, rows, by_residual, mark, lists, code) == (0, 0, False, b"ilar", clusters, dim * width)
        if not plain or form not in (b"full", b"sprs") or numbers > clusters * (1 if form == b"full" else 2):
            raise ValueError("the vectors of its index do not fit it")
        sizes = np.frombuffer(file.read(numbers * 8), "<u8")
        held = sizes if form == b"full" else sizes[1::2]
        known = form == b"full" or (len(sizes) % 2 == 0 and (sizes[::2] < clusters).all())
        if len(sizes) != numbers or not known or (held > count).any() or sum(map(int, held)) != count:
            raise ValueError("the clusters of its index do not add up")
        if file.tell() + count * (code + 8) != size:
            raise ValueError(said)


def open_index(path: Path, mapped: bool = True) -> Any:
    """The index of a file that others may have made; ValueError, RuntimeError or OSError where it is not whole.

    mapped: its vectors stay in the file, mapped into memory: all processes of a machine share one copy.
    """
    import faiss

    check_layout(path)
    return open_mapped(path) if mapped else faiss.read_index(str(path))


def open_mapped(path: Path) -> Any:
    """An index of our own whose vectors stay in the file."""
    import faiss

    index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    lists = faiss.downcast_InvertedLists(index.invlists)
    if hasattr(lists, "prefetch_nthread"):
        lists.prefetch_nthread = 0  # note: else every search starts 32 threads to read ahead
    return index


def write(index: Any, path: Path) -> None:
    """Write an index to a file, its vectors too where they lie mapped in another one: those are read into memory."""
    import faiss

    mapped = faiss.downcast_InvertedLists(index.invlists)
    if isinstance(mapped, faiss.OnDiskInvertedLists):  # note: FAISS would write the name of that file alone
        lists: Any = faiss.ArrayInvertedLists(index.nlist, index.code_size)
        for cluster in range(index.nlist):
            size = mapped.list_size(cluster)
            lists.add_entries(cluster, size, mapped.get_ids(cluster), mapped.get_codes(cluster))
        lists.this.disown()
        index.replace_invlists(lists, True)
    faiss.write_index(index, str(path))


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
