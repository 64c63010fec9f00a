"""Entries → manifest rows: chunks and their ids."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mats_core.audio.file import AudioInfo
from mats_core.audio.windows import chunk_starts
from pipelines.archive.headers import Rowing, chunk_id, chunk_rows
from pipelines.data.inputs import Entry


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


def test_the_channel_that_a_list_means_is_in_the_id_and_ids_without_one_stay_as_they_were() -> None:
    assert chunk_id("a.wav", "1", 60.0) == "327bf376259f8a440c5919913c21bd6d"
    assert chunk_id("a.wav", "1", 60.0, 90.5) == "99a338d2d391446935e5ae9867a6d706"
    ids = {chunk_id("a.wav", "1", 60.0, end, channel) for end in (None, 1.0, 90.5) for channel in (None, 0, 1)}
    assert len(ids) == 9
    info = AudioInfo("wav", 8000, 2, 90.0, "header", 10)
    entries = [Entry("/in/a.wav", "a.wav", version="1", own=own) for own in ({}, {"only_channel": None})]
    entries += [Entry("/in/a.wav", "a.wav", version="1", own={"only_channel": channel}) for channel in (0, 1)]
    found = [chunk_rows(entry, info, 60.0, Rowing())[1]["chunk_id"] for entry in entries]
    assert found == [chunk_id("a.wav", "1", 60.0, None, channel) for channel in (None, None, 0, 1)]


def test_rows_are_minutes_files_or_the_windows_of_their_chunks() -> None:
    minutes, files, windows = (Rowing(per, 7.0, 48_000) for per in ("minute", "file", "window"))
    assert minutes.starts(58.0, 56.0) == [(0.0, 56.0), (56.0, None)]
    assert files.starts(58.0, 56.0) == [(0.0, None)]
    full = [(7.0 * at, 7.0) for at in range(8)]
    assert windows.starts(58.0, 56.0) == [*full, (56.0, None)]  # the last chunk is shorter than a window
    assert windows.starts(66.0, 56.0) == [*full, (56.0, 7.0), (59.0, None)]  # moved back to end with its chunk
    assert windows.starts(56.03, 56.0) == [*full[:-1], (49.0, None)]  # a rest belongs to the window before
    assert windows.starts(3.0, 56.0) == windows.starts(None, 56.0) == [(0.0, None)]


@pytest.mark.parametrize(
    ("per", "end_s", "expected"),
    [
        ("minute", 30.0, [(2.0, 28.0)]),
        ("minute", 1e9, [(2.0, 56.0), (58.0, 8.0)]),
        ("file", 30.0, [(2.0, 28.0)]),
        ("file", None, [(2.0, None)]),
        ("window", 18.0, [(2.0, 7.0), (9.0, 7.0), (11.0, 7.0)]),
        ("window", 16.03, [(2.0, 7.0), (9.0, pytest.approx(7.03))]),
        ("window", None, [*((2.0 + 7.0 * at, 7.0) for at in range(8)), (58.0, 7.0), (59.0, None)]),
    ],
)
def test_the_rows_of_a_stretch(per: str, end_s: float | None, expected: list[tuple[float, float | None]]) -> None:
    assert Rowing(per, 7.0, 48_000).starts(66.0, 56.0, 2.0, end_s) == expected


@pytest.mark.parametrize("per", ["minute", "file", "window"])
@pytest.mark.parametrize("end_s", [None, 1e9])
def test_an_end_far_away_makes_one_row_of_a_sound_whose_length_nobody_knows(per: str, end_s: float | None) -> None:
    """And no list of sixteen million."""
    info = SimpleNamespace(duration_s=None, format="aac", sample_rate=8000, channels=1, duration_source="unknown")
    entry = Entry("/a.aac", "a.aac", 1, "v", start_s=2.0, end_s=end_s)
    (row,) = chunk_rows(entry, info, 60.0, Rowing(per, 7.0, 48_000))
    assert (row["start_s"], row["duration_s"], row["last"], row["error_code"]) == (2.0, None, True, None)


def test_the_windows_of_a_known_chunk_are_rows_of_their_own() -> None:
    chunk = {"chunk_id": "x", "version": "1", "start_s": 56.0, "duration_s": 10.0, "last": True, "error_code": None}
    found = Rowing("window", 7.0, 48_000).within(chunk)
    told = [(row["start_s"], row["duration_s"], row["last"]) for row in found]
    assert told == [(56.0, 7.0, False), (59.0, 7.0, True)]
    assert len({row["chunk_id"] for row in found} | {"x"}) == 3
    assert Rowing().within(chunk) == [chunk]
    assert Rowing("window", 7.0, 48_000).within({**chunk, "error_code": "not_found"})[0]["start_s"] == 56.0
