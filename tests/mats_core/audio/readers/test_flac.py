"""FLAC headers that tell another length than its frames, and damaged frames."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mats_core.audio.decode import decode, probe
from mats_core.audio.file import SourceFile
from mats_core.audio.repair import repair
from tests.mats_core.audio.test_repair import id3
from tests.recordings import encode

RATE = 16000
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 5 * RATE).astype(np.int16)
FLAC = encode(SAMPLES.astype(np.float32) / 32768, RATE, "flac")


def with_total(samples: int, data: bytes = FLAC) -> bytes:
    """The FLAC file with another number of samples in its STREAMINFO."""
    return data[:21] + bytes([data[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & 0xFFFFFFFF) + data[26:]


def length(data: bytes) -> tuple[float | None, float, bool]:
    """(what the header tells, what is decoded, whether it is complete)"""
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    return probe(io.BytesIO(data)).duration_s, decoded.decoded_s, decoded.complete


@pytest.mark.parametrize("total", [0, 1, 2 * RATE, 5 * RATE - 1, 5 * RATE])
def test_of_a_flac_the_last_frame_tells_the_length(total: int) -> None:
    assert length(with_total(total)) == (5.0, 5.0, True)


@pytest.mark.parametrize("total", [5 * RATE + 1, 700 * RATE, (1 << 36) - 1])
def test_a_flac_that_ends_before_its_header_says_so_has_no_more_than_it_holds(total: int) -> None:
    assert length(with_total(total)) == (5.0, 5.0, False)


@pytest.mark.parametrize("total", [0, 2 * RATE, 5 * RATE])
@pytest.mark.parametrize(
    "behind", [b"TAG" + bytes(125), b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0), bytes(3000)]
)
def test_what_stands_behind_a_flac_is_no_sound(total: int, behind: bytes) -> None:
    assert length(with_total(total) + behind) == (5.0, 5.0, True)
    assert np.array_equal(decode(io.BytesIO(with_total(total) + behind), sample_rate=RATE).samples, SAMPLES)


def test_silence_takes_no_bytes_and_all_its_time() -> None:
    silence = encode(np.zeros(700 * RATE, np.float32), RATE, "flac")
    assert 8 * len(silence) < 700 * 1600
    for data in (silence, with_total(0, silence)):
        assert length(data) == (700.0, 700.0, True)
        late = decode(io.BytesIO(data), sample_rate=RATE, start_s=660, duration_s=60)
        assert (late.decoded_s, late.complete) == (40.0, True)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.999])
def test_a_cut_flac_is_as_long_as_its_whole_frames(share: float) -> None:
    told, decoded_s, complete = length(FLAC[: int(len(FLAC) * share)])
    assert told == decoded_s
    assert 5 * share - 0.3 < decoded_s < 5 * share + 0.1
    assert not complete


def test_what_a_cut_flac_lacks_is_told() -> None:
    decoded = decode(io.BytesIO(FLAC[: len(FLAC) // 2]), sample_rate=RATE)
    assert not decoded.complete
    assert decoded.decoded_s + decoded.lost_s == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize("damage", ["zeros", "out", "one byte"])
def test_damage_in_a_flac_costs_its_frames_and_moves_nothing(damage: str) -> None:
    at = len(FLAC) // 2
    data = {
        "zeros": FLAC[:at] + bytes(3000) + FLAC[at + 3000 :],
        "out": FLAC[:at] + FLAC[at + 3000 :],
        "one byte": FLAC[:at] + bytes([FLAC[at] ^ 255]) + FLAC[at + 1 :],
    }[damage]
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert (decoded.decoded_s, decoded.complete) == (5.0, False)
    assert 0.2 < decoded.lost_s < 1.0  # frames of 4096 samples
    same = decoded.samples == SAMPLES
    assert same[: 2 * RATE].all()
    assert same[3 * RATE + RATE // 2 :].all()
    assert same.mean() > 1 - decoded.lost_s / 5 - 0.01
    row = decode(io.BytesIO(data), sample_rate=RATE, start_s=2.0, duration_s=2.0)
    assert np.array_equal(row.samples, decoded.samples[2 * RATE : 4 * RATE])
    assert row.lost_s == decoded.lost_s


@pytest.mark.parametrize("tag", [b"", id3(300)])
def test_joined_flacs_are_heard_to_their_end(tag: bytes) -> None:
    decoded = decode(io.BytesIO(tag + FLAC + FLAC + with_total(0)), sample_rate=RATE)
    assert np.array_equal(decoded.samples, np.tile(SAMPLES, 3))
    for total in (5 * RATE, 0):
        file = SourceFile(io.BytesIO(tag + with_total(total) * 2))
        repair(file, None, in_memory=False)  # as of a large file
        assert file.joined


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 60) | st.integers(0, len(FLAC)), st.binary(max_size=9)), max_size=5),
    cut=st.integers(0, len(FLAC)),
    tag=st.sampled_from([b"", id3(20), b"ID3\xff\xff\xff\xff\xff\xff\xff"]),
)
def test_whatever_a_flac_header_says_its_parser_ends(edits: list[tuple[int, bytes]], cut: int, tag: bytes) -> None:
    data = bytearray(FLAC)
    for place, edit in edits:
        data[place : place + len(edit)] = edit
    file = SourceFile(io.BytesIO(tag + bytes(data[:cut] if cut > 100 else data)))
    repair(file, None, in_memory=True)
    assert len(file.head(file.size)) == file.size
