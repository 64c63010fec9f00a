"""Entries → manifest rows: chunks and their ids."""

from __future__ import annotations

import pytest

from mats_core.audio.windows import chunk_starts
from pipelines.archive.headers import chunk_id


@pytest.mark.parametrize("seconds", [0.3, 59.99, 60.0, 60.04, 60.06, 119.0, 180.0, 3601.0])
def test_chunks_cover_the_file_and_the_last_reads_to_its_end(seconds: float) -> None:
    cuts = chunk_starts(seconds, 60.0)
    assert cuts[-1][1] is None
    assert sum(length or 0 for _, length in cuts) == pytest.approx(cuts[-1][0])
    assert 0 < seconds - cuts[-1][0] <= 60.05


def test_chunks_by_hand() -> None:
    assert chunk_starts(130.0, 60.0) == [(0.0, 60.0), (60.0, 60.0), (120.0, None)]
    assert chunk_starts(None, 60.0) == [(0.0, None)]


def test_a_chunk_id_knows_path_version_and_start_only() -> None:
    ids = {chunk_id(p, v, s) for p in ("a.wav", "b.wav") for v in ("1", "2") for s in (0.0, 60.0)}
    assert len(ids) == 8
    assert chunk_id("a.wav", "1", 60.0) == chunk_id("a.wav", "1", 60.0000001)
