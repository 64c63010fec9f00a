"""What begins in the midst of a file: tags, another file, or frames of a bare stream, each of which tells in its first
bytes how long it is (MPEG audio, ADTS, AC-3, LATM, DTS, MLP).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mats_core.audio.file import SourceFile
from mats_core.audio.signatures import HEAD_BYTES, begins_a_file, sniff


def _tables() -> tuple[npt.NDArray[np.int64], ...]:
    """By the 10 bits of a header that tell version, layer, bit rate and sampling rate: bytes of a frame and of its
    padding, samples of a frame, and Hz; 0 bytes where no frame begins like that."""
    rates = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
    low = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    kbits = {
        (True, 1): tuple(range(32, 449, 32)),
        (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
        (False, 2): low,
        (False, 3): low,
    }
    found = np.zeros((4, 1024), np.int64)
    for key in range(1024):
        version, layer, kbit, hertz = key >> 8, 4 - (key >> 6 & 3), key >> 2 & 15, key & 3
        if version == 1 or layer == 4 or kbit in (0, 15) or hertz == 3:
            continue
        rate, bits = rates[version][hertz], kbits[version == 3, layer][kbit - 1] * 1000
        samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
        slot = 4 if layer == 1 else 1
        found[:, key] = samples // 8 // slot * bits // rate * slot, slot, samples, rate
    return tuple(found)


BYTES, PADDING, SAMPLES, RATES = _tables()


def _mp3_bytes(head: bytes) -> int:
    if len(head) < 3 or head[0] != 0xFF or head[1] < 0xE2:
        return 0
    key = (head[1] >> 1 & 15) << 6 | head[2] >> 2
    return int(BYTES[key] + PADDING[key] * (head[2] >> 1 & 1)) if BYTES[key] else 0


class FrameKind(NamedTuple):
    """Frames that tell how long they are. `begin`: what one begins with; `length`: of its first bytes, that of the
    frame, 0 where they are none."""

    begin: re.Pattern[bytes]
    length: Callable[[bytes], int]


def _ac3_bytes(head: bytes) -> int:
    if head[:2] != b"\x0bw" or len(head) < 6:
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * ((head[2] << 8 & 0x700 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code >= 2 * len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[code // 2]
    return (4 * kbits, 2 * (kbits * 96000 // 44100 + code % 2), 6 * kbits)[rate]


def _adts_bytes(head: bytes) -> int:
    there = len(head) >= 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if there else 0


def _latm_bytes(head: bytes) -> int:
    there = len(head) >= 3 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0
    return ((head[1] & 0x1F) << 8 | head[2]) + 3 if there else 0


def _dts_bytes(head: bytes) -> int:
    there = len(head) >= 8 and head[:4] == b"\x7f\xfe\x80\1"
    return ((head[5] & 3) << 12 | head[6] << 4 | head[7] >> 4) + 1 if there else 0


def _mlp_bytes(head: bytes) -> int:
    return 2 * (head[0] << 8 & 0xF00 | head[1]) if len(head) >= 4 else 0


_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_KINDS = tuple(
    FrameKind(re.compile(begin, re.DOTALL), length)
    for begin, length in (
        (rb"\xff[\xf0\xf1\xf8\xf9]", _adts_bytes),
        (rb"\x0bw", _ac3_bytes),
        (rb"\x56[\xe0-\xff]", _latm_bytes),
        (rb"\x7f\xfe\x80\x01", _dts_bytes),
        (rb"....\xf8\x72\x6f[\xba\xbb]", _mlp_bytes),
    )
)


def frame_of(head: bytes) -> FrameKind | None:
    """What frames a bare stream is made of, by its first two."""
    for frames in _KINDS:
        size = frames.length(head) if frames.begin.match(head) else 0
        if size and (size >= len(head) - 16 or frames.length(head[size:])):
            return frames
    return None


def begins_frames(head: bytes) -> bool:
    """Whether bytes begin with three frames of one kind, or as many as there is room for, two at least."""
    for kind in (*_KINDS, FrameKind(re.compile(b"\xff"), _mp3_bytes)):
        at = count = 0
        while count < _FEWEST and (size := kind.length(head[at : at + 16])) and kind.begin.match(head, at):
            at, count = at + size, count + 1
        if count == _FEWEST or (count == _FEWEST - 1 and at > len(head) - 16):
            return True
    return False


_FEWEST = 3


def may_begin(data: bytes) -> bool:
    """Whether `tell_another` is worth its reads where `data`, of some 32 bytes, stands."""
    return begins_a_file(data) or _tag_size(data) > 0 or data[:1] in _BEGIN_FRAMES


_BEGIN_FRAMES = (b"\xff", b"\x0b")  # MP3, AAC and AC-3


def tell_another(file: SourceFile, place: int) -> bool:
    """Whether another file begins at `place`, behind the sound, or behind tags there; if so, the file tells it."""
    begin, head = place, file.head(32, offset=place)
    while size := _tag_size(head):
        has_header = head[:3] == b"APE" and file.head(8, offset=place + _size_of_ape(head)) == head[:8]
        place += size + (_size_of_ape(head) if has_header else 0)
        head = file.head(32, offset=place)
    head = file.head(HEAD_BYTES, offset=place) if place > begin or head[:1] in _BEGIN_FRAMES else head
    another = sniff(head)
    if not begins_a_file(head) and not begins_frames(head) and (place == begin or another.kind != "audio"):
        return False
    file.is_followed(place, another.name == sniff(file.head(HEAD_BYTES)).name)
    return True


def _size_of_ape(head: bytes) -> int:
    """Bytes of an APE tag without its header."""
    return int.from_bytes(head[12:16], "little")


def _tag_size(head: bytes) -> int:
    """Bytes of the ID3 tag, or of the header or footer of an APE tag, that bytes begin with, 0 where they do not."""
    if head[:8] == b"APETAGEX":
        return 32
    return 128 if head[:3] == b"TAG" else id3_size(head)


def id3_size(head: bytes) -> int:
    """Bytes of the ID3 tag that bytes begin with, 0 where they do not."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)


def without_tag(file: SourceFile, end: int) -> int:
    """Where the sound of a file ends that ends at `end`, with or without ID3v1 and APE tags."""
    tail = file.head(128 + 32, offset=max(0, end - 160))
    if tail[-128:-125] == b"TAG":
        end, tail = end - 128, tail[:-128]
    if tail[-32:-24] == b"APETAGEX":
        end -= struct.unpack("<I", tail[-20:-16])[0] + 32 * (tail[-9] >> 7)
    return end
