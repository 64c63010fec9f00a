from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mats_core.errors import SettingsError
from pipelines.search import build
from pipelines.search import index as index_module
from pipelines.search.build import bring_up
from pipelines.search.index import Index
from pipelines.search.shards import Source, centred
from tests.pipelines.search.made_up import WINDOW_S, chunk_rows, unit_vectors, windows_of, write_run


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Index, np.ndarray]:
    """An index of 600 windows in four shards, and its vectors."""
    monkeypatch.setattr(build, "_room", lambda standing: 200)
    vectors = unit_vectors(600)
    parts = [chunk_rows(windows_of(vectors[at : at + 150]), first=at // 2) for at in range(0, 600, 150)]
    run = write_run(tmp_path / "run", *parts)
    index = Index(str(run), bring_up(str(run), Source(str(run / "embeddings"), "embeddings", WINDOW_S)).standing)
    assert len(index.standing.shards) == 4
    return index, centred(vectors, vectors.mean(axis=0))


def test_the_nearest_are_those_of_exact_search(opened: tuple[Index, np.ndarray]) -> None:
    index, vectors = opened
    queries = centred(unit_vectors(50, seed=9), unit_vectors(600).mean(axis=0))
    scores, windows = index.search(queries, 10)  # 600 windows: all are looked at
    exact = queries @ vectors.T
    nearest = np.argsort(-exact, axis=1)[:, :10]
    same = [len(set(a) & set(b)) / 10 for a, b in zip(windows.tolist(), nearest.tolist(), strict=True)]
    assert np.mean(same) > 0.99  # two that are equal in 16 bits may change places
    np.testing.assert_allclose(scores, np.take_along_axis(exact, windows, 1), atol=2e-3)


def test_only_what_is_allowed_is_found(opened: tuple[Index, np.ndarray]) -> None:
    index, vectors = opened
    allowed = np.zeros(600, bool)
    allowed[[3, 250, 251, 599]] = True
    scores, windows = index.search(vectors[[250]], 10, allowed)
    assert windows[0, 0] == 250 and set(windows[0].tolist()) == {3, 250, 251, 599, -1}
    assert scores[0, windows[0] < 0].max() == -np.inf


def test_rows_and_times_belong_to_their_windows(opened: tuple[Index, np.ndarray]) -> None:
    index, _ = opened
    chosen = np.array([0, 1, 2, 299, 300, 599])
    assert index.row_of(chosen).tolist() == [0, 0, 1, 149, 150, 299]
    assert index.rows["row_id"].take(index.row_of(chosen)).to_pylist() == [0, 0, 1, 149, 150, 299]
    starts, ends = index.times(chosen)
    assert starts.tolist() == [0.0, 5.0, 60.0, 125.0, 0.0, 125.0] and ends.tolist() == [
        5.0,
        9.0,
        65.0,
        129.0,
        5.0,
        129.0,
    ]
    rows = np.zeros(300, bool)
    rows[[0, 149]] = True
    assert np.flatnonzero(index.windows_of(rows)).tolist() == [0, 1, 298, 299]


def test_a_query_costs_the_same_in_a_run_of_any_size(
    opened: tuple[Index, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _ = opened
    assert index.probes() == index.standing.clusters
    monkeypatch.setattr(index_module, "SCANNED", 200)
    monkeypatch.setattr(index_module, "FEWEST_PROBES", 1)
    assert index.probes() == 5  # a third of 15 clusters
    assert index.probes(share=0.5) == 10 and index.probes(share=0.01) == 15


def test_a_damaged_shard_is_refused(opened: tuple[Index, np.ndarray], tmp_path: Path) -> None:
    index, _ = opened
    (tmp_path / "run" / "_state" / "index" / f"{index.standing.shards[2].name}.faiss").write_bytes(b"IwSq" + bytes(200))
    with pytest.raises(SettingsError, match="damaged"):
        Index(str(tmp_path / "run"), index.standing)
