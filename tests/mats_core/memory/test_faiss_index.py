"""IVF indexes: shards merged on disk are the index that FAISS would have written."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest

from mats_core.errors import SettingsError
from mats_core.memory import faiss_index


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("storage", faiss_index.STORAGES)
@pytest.mark.parametrize("cuts", [(0, 300), (0, 1, 120, 120, 300)])
def test_merged_shards_are_the_whole_index(tmp_path: Path, storage: str, cuts: tuple[int, ...]) -> None:
    rows = unit_rows(300)
    empty = faiss_index.empty_index(faiss_index.train_centroids(rows, 12), storage, rows)
    data = faiss_index.to_bytes(empty)
    shards = []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        shard = faiss_index.from_bytes(data)
        faiss_index.fill(shard, rows[start:stop], start, block=50)
        shards.append(tmp_path / f"{number}.faiss")
        shards[-1].write_bytes(faiss_index.to_bytes(shard))
    told = faiss_index.merge_shards(empty, shards, tmp_path / "merged.faiss")
    whole = faiss_index.from_bytes(data)
    faiss_index.fill(whole, rows, 0)
    merged = (tmp_path / "merged.faiss").read_bytes()
    assert merged == faiss_index.to_bytes(whole)
    assert told == hashlib.sha256(merged).hexdigest()
    assert faiss_index.to_bytes(empty) == data  # left as it was
    mapped, read = faiss_index.open_mapped(tmp_path / "merged.faiss"), faiss.read_index(str(tmp_path / "merged.faiss"))
    for index in (mapped, read):
        index.nprobe = 12
        distances, found = index.search(rows[:20], 1)
        assert found[:, 0].tolist() == list(range(20))
        assert distances.max() < {"float32": 1e-6, "float16": 1e-5, "int8": 1e-3}[storage]


def test_a_format_that_is_not_known_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(20)
    empty = faiss_index.empty_index(rows[:2], "float32", rows)
    monkeypatch.setattr(faiss_index, "to_bytes", lambda index: b"another format of 40 bytes and more, really")
    with pytest.raises(RuntimeError, match="not known here"):
        faiss_index.merge_shards(empty, [], tmp_path / "merged.faiss")
    assert not (tmp_path / "merged.faiss").exists()


def test_kmeans_finds_the_groups_and_keeps_their_means() -> None:
    corners = np.eye(4, 16, dtype=np.float32)
    rows = np.repeat(corners, 25, axis=0) + 0.01 * unit_rows(100)
    centroids = faiss_index.train_centroids(rows, 4)
    nearest = ((centroids[:, None] - corners) ** 2).sum(-1).min(axis=1)
    assert nearest.max() < 1e-3
    assert np.array_equal(centroids, faiss_index.train_centroids(rows, 4))
    with pytest.raises(SettingsError, match="clusters: 4 clusters cannot be made of 3 rows; choose 1 to 3"):
        faiss_index.train_centroids(rows[:3], 4)


@pytest.mark.parametrize(("rows", "clusters"), [(1, 1), (78, 2), (5172, 72), (1_000_000, 1000)])
def test_default_clusters(rows: int, clusters: int) -> None:
    assert faiss_index.default_clusters(rows) == clusters


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(SettingsError, match="float32, float16, int8"):
        faiss_index.empty_index(unit_rows(2), "int4", unit_rows(2))
