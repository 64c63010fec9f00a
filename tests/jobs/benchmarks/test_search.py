from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.benchmarks import search
from tests.pipelines.search.made_up import unit_vectors


def test_small_figures_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few windows are all looked at: what is found is what exact search finds."""
    sounds = unit_vectors(64, dim=search.DIM)
    monkeypatch.setattr(search, "embedded_clips", lambda count: sounds)
    monkeypatch.setattr(search, "embedded_words", lambda count: unit_vectors(count, seed=3, dim=search.DIM))
    monkeypatch.setattr(search, "QUERIES", 20)
    monkeypatch.setattr(search, "PART_WINDOWS", 500)
    figures = search.measure(tmp_path, 1005)
    assert figures["windows"] == 1005 and figures["probes"] == figures["clusters"] and figures["storage"] == "float16"
    for found in figures["queries"].values():
        assert found["recall"] > 0.99 and found["median_ms"] > 0


def test_windows_are_mixtures_of_unit_length() -> None:
    sounds = unit_vectors(8, dim=search.DIM)
    first, again = (next(search.made_windows(sounds, 100, seed=1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)
    assert len(np.unique(first[:, 0])) == 100
