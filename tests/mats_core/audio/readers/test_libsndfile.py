"""libsndfile as a reader: exact stretches, and what it knows of a file's end."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mats_core.audio.file import SourceFile
from mats_core.audio.readers.libsndfile import LibsndfileSource
from mats_core.audio.signatures import HEAD_BYTES, sniff
from tests.recordings import encode, melody

RATE = 16000


def opened(data: bytes) -> LibsndfileSource:
    file = SourceFile(io.BytesIO(data))
    return LibsndfileSource(file, sniff(data[:HEAD_BYTES]))


def samples(source: LibsndfileSource, first: int, stop: int | None) -> np.ndarray:
    """float32 [n, channels]: what the blocks hold together."""
    return np.concatenate([block for block, _ in source.blocks(first, stop)])


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff"])
def test_a_stretch_is_the_slice_of_the_whole(kind: str) -> None:
    data = encode(melody(RATE, 3.0), RATE, kind)
    whole = samples(opened(data), 0, None)
    np.testing.assert_array_equal(samples(opened(data), 20_000, 30_000), whole[20_000:30_000])


def test_the_header_tells_the_length() -> None:
    info = opened(encode(melody(RATE, 2.0), RATE, "wav")).info()
    assert (info.sample_rate, info.channels, info.duration_s, info.duration_source) == (RATE, 1, 2.0, "header")


def test_of_a_cut_flac_it_is_known_that_it_is_cut() -> None:
    data = encode(melody(RATE, 4.0), RATE, "flac")
    for file, cut in ((data, False), (data[: len(data) // 2], True)):
        source = opened(file)
        samples(source, 0, None)
        assert (source.broken or source.ended_early()) is cut
