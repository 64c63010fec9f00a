"""The plain way and SantaMemory search alike, and exact search over parts is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.benchmarks.memory import exact_search, masked_search, plain_kmeans, plain_search, run_benchmark
from mats_core.errors import SettingsError


def unit(count: int, seed: int) -> np.ndarray:
    """float32 [count, 16]."""
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_careful_search_finds_what_the_plain_one_finds() -> None:
    bank, queries = torch.from_numpy(unit(120, 0)), torch.from_numpy(unit(5, 1))
    centroids, labels = plain_kmeans(bank, 4)
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]
    for query in queries:
        assert torch.equal(plain_search(bank, centroids, labels, query), masked_search(bank, centroids, labels, query))


def test_exact_search_over_parts_is_that_over_all_rows(tmp_path: Path) -> None:
    bank, queries = unit(90, 2), unit(3, 3)
    (tmp_path / "embeddings").mkdir()
    for part, rows in enumerate((bank[:40], bank[40:])):
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 16)
        pq.write_table(pa.table({"embedding": column}), tmp_path / "embeddings" / f"part-{part}.parquet")
    found = exact_search(tmp_path, queries)
    nearest = np.argsort(-(queries @ bank.T), axis=1)[:, : len(found[0])]
    assert [sorted(row) for row in found] == np.sort(nearest, axis=1).tolist()


def test_more_clusters_than_entries_are_refused() -> None:
    with pytest.raises(SettingsError, match="clusters: 5 entries make no 9 clusters; choose 1 to 5"):
        run_benchmark(5, 9, False, None, True)
