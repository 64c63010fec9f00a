from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.search.build import bring_up
from pipelines.search.index import Index
from pipelines.search.novel import NEIGHBORS, distances_to_others
from pipelines.search.shards import Source
from tests.pipelines.search.made_up import DIM, WINDOW_S, chunk_rows, write_run


def _opened(run: Path) -> Index:
    return Index(str(run), bring_up(str(run), Source(str(run / "embeddings"), "embeddings", WINDOW_S)).standing)


def _near(place: int, count: int, seed: int) -> np.ndarray:
    """Unit vectors [N, D] around one direction."""
    vectors = np.eye(DIM)[place] + 0.05 * np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_sound_that_one_file_alone_has_is_the_furthest(tmp_path: Path) -> None:
    known = [_near(number % 2, 3, number) for number in range(20)]
    alone = _near(7, 40, 99)  # more windows than are looked at, all alike, in one file
    run = write_run(tmp_path / "run", chunk_rows([*known, alone]))
    index = _opened(run)
    far = distances_to_others(index, np.arange(100))
    assert set(np.argsort(-far)[:40].tolist()) == set(range(60, 100))
    vectors = index.vectors(np.arange(100))
    files = np.array([row for row in range(20) for _ in range(3)] + [20] * 40)
    for window in (0, 31):  # by hand: the mean cosine to the nearest of other files
        cosines = np.sort((vectors @ vectors[window])[files != files[window]])[::-1][:NEIGHBORS]
        assert abs(far[window] - (1 - cosines.mean())) < 2e-3


def test_against_a_reference_what_is_in_both_is_not_new(tmp_path: Path) -> None:
    archive = write_run(tmp_path / "archive", chunk_rows([_near(number % 3, 2, number) for number in range(30)]))
    month = [_near(number % 3, 2, 100 + number) for number in range(9)] + [_near(9, 2, 200), _near(9, 2, 201)]
    new = write_run(tmp_path / "month", chunk_rows(month, first=500))
    far = distances_to_others(_opened(new), np.arange(22), _opened(archive))
    assert set(np.argsort(-far)[:4].tolist()) == {18, 19, 20, 21}  # twice in the month, and never before
