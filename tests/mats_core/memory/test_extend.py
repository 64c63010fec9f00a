"""A memory with further captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core.errors import SettingsError
from mats_core.memory.extend import extend_memory
from mats_core.memory.santa import SantaMemory


def unit(rows: int, seed: int, dim: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    captions = [f"sound {row}" for row in range(400)]
    memory = SantaMemory.build(unit(400, 0), captions, ["old"] * 400, clusters=8, encoder_fingerprint="clap")
    memory.save(tmp_path / "memory")
    return tmp_path / "memory"


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_old_rows_stay_and_new_ones_are_found(tmp_path: Path, storage: str) -> None:
    old = SantaMemory.build(unit(400, 0), [f"sound {n}" for n in range(400)], clusters=8, storage=storage)  # type: ignore[arg-type]
    old.save(tmp_path / "memory")
    new = unit(30, 1)
    extend_memory(tmp_path / "memory", new, [f"new {n}" for n in range(30)], "mine").save(tmp_path / "more")
    more = SantaMemory.load(tmp_path / "more")
    assert (more.count, more.clusters, more.storage) == (430, 8, storage)
    every = np.arange(400)
    np.testing.assert_array_equal(more.vectors(every), old.vectors(every))
    assert more.captions(np.array([0, 399, 400, 429])) == ["sound 0", "sound 399", "new 0", "new 29"]
    assert more.captions(np.array([399, 400]), "source") == ["", "mine"]
    _, rows = more.search(new, 1, probe="all")
    assert rows[:, 0].tolist() == list(range(400, 430))
    _, near = more.search(new, 1, probe=1)  # its own cluster is the nearest centroid's
    assert near[:, 0].tolist() == list(range(400, 430))


def test_what_is_far_from_the_new_rows_is_answered_as_before(place: Path) -> None:
    """Rows keep their numbers, and with them their noise: an embedding whose neighbours are all old moves as it did."""
    before = SantaMemory.load(place)
    after = extend_memory(place, -before.vectors(np.arange(3)), ["a", "b", "c"], "mine")
    queries = torch.from_numpy(before.vectors(np.arange(40, 60)))
    rows = after.search(queries.numpy(), 4)[1]
    old = (rows < 400).all(axis=1)
    assert old.sum() > 10
    options = {"neighbors": 4, "noise": "keyed", "noise_variance": 0.01}
    torch.testing.assert_close(after.transfer(queries, **options)[old], before.transfer(queries, **options)[old])


def test_captions_that_are_there_are_left_out(place: Path) -> None:
    more = extend_memory(place, unit(4, 3), ["sound 7", "new", "new", "other"], "mine")
    assert more.captions(np.arange(400, more.count)) == ["new", "other"]


def test_other_dimensions_are_refused(place: Path) -> None:
    with pytest.raises(SettingsError, match="16 numbers"):
        extend_memory(place, unit(2, 0, dim=8), ["a", "b"], "mine")
