"""MP3: all of it is heard, in its place, whatever its header says and whatever stands between its frames."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from mats_core.audio.decode import AudioInfo, decode, probe
from mats_core.audio.file import SourceFile
from mats_core.audio.readers.mp3 import Mp3Source, id3_bytes
from tests.recordings import encode, tone_of_each_second, tones

RATE = 16000
TAG = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
WHOLE = encode(tones(RATE, 12), RATE, "mp3")
BARE = WHOLE[len(WHOLE) - sum(Mp3Source(SourceFile(io.BytesIO(WHOLE)))._sound()[0].size) :]
"""The frames alone, without the frame of the Xing header."""


def _length(data: bytes) -> tuple[float, str]:
    info = probe(io.BytesIO(data))
    assert info.duration_s is not None
    return round(info.duration_s, 2), info.duration_source


def _heard(data: bytes, **stretch: float) -> list[int | None]:
    return tone_of_each_second(decode(io.BytesIO(data), sample_rate=RATE, **stretch).samples, RATE)


def _with_frames(data: bytes, share: float) -> bytes:
    """An MP3 whose header tells only a share of its frames, or more than there are."""
    place = data.find(b"Xing") + 8
    frames = struct.unpack(">I", data[place : place + 4])[0]
    return data[:place] + struct.pack(">I", int(frames * share)) + data[place + 4 :]


def test_a_true_header_is_believed_and_its_delay_and_padding_are_not_heard():
    assert probe(io.BytesIO(WHOLE)) == AudioInfo("mp3", RATE, 1, 12.0, "header")
    decoded = decode(io.BytesIO(WHOLE), sample_rate=RATE)
    assert (decoded.decoded_s, decoded.complete, decoded.lost_s) == (12.0, True, 0.0)
    assert _heard(WHOLE) == list(range(12))


@pytest.mark.parametrize("share", [0.3, 3.0])
def test_a_header_that_tells_too_few_or_too_many_frames_shortens_and_lengthens_nothing(share):
    data = _with_frames(WHOLE, share)
    assert _length(data) == (pytest.approx(12.0, abs=0.1), "decoded")
    assert _heard(data)[:12] == list(range(12))
    assert decode(io.BytesIO(data), sample_rate=RATE).complete


def test_without_header_the_frames_are_counted():
    assert _length(BARE) == (pytest.approx(12.0, abs=0.1), "decoded")
    assert _heard(BARE, start_s=6.07, duration_s=4.0) == [6, 7, 8, 9]  # the delay of the encoder is not told


def test_another_bit_rate_in_the_middle_moves_nothing():
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)
    mixed = encode(np.concatenate([tones(RATE, 12), loud, tones(RATE, 12)]), RATE, "mp3")
    frames = Mp3Source(SourceFile(io.BytesIO(mixed)))._sound()[0]
    assert len(set(frames.size.tolist())) > 2  # it is VBR: the estimate of its first frames would be wrong
    bare = mixed[int(frames.at[0]) :]
    assert _length(bare)[0] == pytest.approx(28.0, abs=0.1)
    assert _heard(bare, start_s=20.07, duration_s=4.0) == [4, 5, 6, 7]


@pytest.mark.parametrize("between", [TAG, b"TAG" + bytes(125)])
def test_tags_between_joined_files_cost_nothing(between):
    decoded = decode(io.BytesIO(WHOLE + between + WHOLE), sample_rate=RATE)
    assert decoded.decoded_s == pytest.approx(24.1, abs=0.1)  # the padding of the first is heard
    assert (decoded.complete, decoded.lost_s) == (True, 0.0)
    assert _heard(WHOLE + between + WHOLE)[:12] == list(range(12))
    assert _length(WHOLE + between + WHOLE)[0] == pytest.approx(decoded.decoded_s, abs=0.01)


def test_damage_costs_its_own_length_and_is_told():
    frames = Mp3Source(SourceFile(io.BytesIO(WHOLE)))._sound()[0]
    first, stop = int(frames.at[100]), int(frames.at[140])
    data = WHOLE[:first] + bytes(stop - first) + WHOLE[stop:]
    decoded = decode(io.BytesIO(data), sample_rate=RATE)
    assert not decoded.complete
    assert decoded.lost_s == pytest.approx(40 * 576 / RATE, abs=0.2)  # of VBR, an estimate
    assert decoded.decoded_s == pytest.approx(12.0 - 40 * 576 / RATE, abs=0.1)
    assert _heard(data, start_s=6.0, duration_s=4.0) == _heard(data)[6:10]  # rows agree on what is where


def test_stretches_join_without_a_seam_behind_damage():
    data = bytearray(WHOLE)
    data[len(data) // 3 : len(data) // 3 + 500] = bytes(500)
    whole = decode(io.BytesIO(data), sample_rate=RATE).samples.astype(int)
    parts = [
        decode(io.BytesIO(data), sample_rate=RATE, start_s=at, duration_s=2.5).samples for at in np.arange(5) * 2.5
    ]
    joined = np.concatenate(parts).astype(int)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() <= 2


def test_a_cut_file_says_how_much_is_missing():
    decoded = decode(io.BytesIO(WHOLE[: len(WHOLE) // 2]), sample_rate=RATE)
    assert not decoded.complete
    assert decoded.decoded_s + decoded.lost_s == pytest.approx(12.0, abs=0.1)


@pytest.mark.parametrize(("layer", "codec"), [(2, "mp2")])
def test_older_layers_are_heard_too(layer, codec):
    data = encode(tones(RATE, 6), RATE, codec)
    assert _length(data)[0] == pytest.approx(6.0, abs=0.15)
    assert _heard(data, start_s=2.07, duration_s=3.0) == [2, 3, 4]


def test_a_picture_in_the_tag_is_no_sound():
    picture = np.random.default_rng(0).bytes(300_000)
    size = bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0))
    data = b"ID3\x04\0\0" + size + picture + WHOLE
    assert id3_bytes(SourceFile(io.BytesIO(data))) == 10 + len(picture)
    assert _length(data) == (12.0, "header")


class _Far(io.RawIOBase):
    """A file in a store: it counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self._file, self.bytes_read = io.BytesIO(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        found = self._file.readinto(buffer)
        self.bytes_read += found
        return found


def test_of_a_store_a_true_header_is_sampled_and_an_untrue_one_counted():
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, 400 * RATE).astype(np.float32)
    data = encode(loud, RATE, "mp3")
    far = _Far(data)
    assert probe(far) == AudioInfo("mp3", RATE, 1, 400.0, "header")  # type: ignore[arg-type]
    assert far.bytes_read < len(data) * 0.5
    info = probe(_Far(_with_frames(data, 0.3)))  # type: ignore[arg-type]
    assert (round(info.duration_s or 0), info.duration_source) == (400, "decoded")
