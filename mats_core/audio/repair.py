"""Where the sound of a file ends, and headers that say it wrongly (WAV, AIFF, AU, CAF, FLAC, Ogg) put right.

The file itself stays as it is: a `SourceFile` is patched, so that decoders read the right length.
"""

from __future__ import annotations

import contextlib
import struct
from typing import NamedTuple

from mats_core.audio.file import AudioError, SourceFile
from mats_core.audio.signatures import HEAD_BYTES


def repair(file: SourceFile, until_s: float | None, in_memory: bool) -> None:
    """Put right what the header says wrongly of the length, as far as reading up to `until_s` (None: the end) needs it,
    and mark a file of several streams one behind the other as `joined`.

    Raises AudioError with a storage code where reading fails.
    """
    repair_sizes(file)
    repair_flac(file, until_s, in_memory)
    file.joined = file.joined or ogg_is_chained(file)


def wav_samples(file: SourceFile, head: bytes) -> int | None:
    """Bytes in the data chunk of a WAV file; 0 where there is none; None where it declares more than there
    is.

    Streamed files declare 0 or the largest number; what follows the header is theirs then.
    """
    position, big = 12, head[:4] == b"RIFX"
    while position + 8 <= file.size:
        if position + 8 <= len(head):
            chunk = head[position : position + 8]
        else:
            with contextlib.suppress(AudioError):
                chunk = file.head(8, offset=position)
        if len(chunk) < 8:
            return 0
        size = struct.unpack(">I" if big else "<I", chunk[4:8])[0]
        if chunk[:4] == b"data":
            there = file.size - position - 8
            if size == 0 or size >= 0x7FFFF000 or head[:4] == b"RF64":
                return there
            return None if size > there and there else min(size, there)
        position += 8 + size + (size & 1)
    return 0


class _Chunks(NamedTuple):
    """How a format cuts its file into chunks of a name and a size: where the first one is, what its size is written
    like, and what the chunk with the sound is called. Chunks begin at even places, but for CAF's."""

    first: int
    size: str
    sound: bytes


_CHUNKS = {
    (b"RIFF", b"WAVE"): _Chunks(12, "<I", b"data"),
    (b"RF64", b"WAVE"): _Chunks(12, "<I", b"data"),
    (b"FORM", b"AIFF"): _Chunks(12, ">I", b"SSND"),
    (b"FORM", b"AIFC"): _Chunks(12, ">I", b"SSND"),
    (b"caff", b"desc"): _Chunks(8, ">q", b"data"),
}
_PLAIN_AIFC = (b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"FL32")


def repair_sizes(file: SourceFile) -> None:
    """Let a WAV, RF64, AIFF, AU or CAF file whose sizes are stale (its recorder was stopped) read as if they reached to
    its end.

    They are stale where what follows the declared samples is no chunk: a name of four letters and a size that fits.
    """
    head = file.head(HEAD_BYTES)
    if head[:4] == b".snd" and len(head) >= 24:
        first, size = struct.unpack(">II", head[4:12])
        if file.size - first - size > 8:
            file.patch(8, b"\xff\xff\xff\xff")  # unknown: to the end
        return
    layout = _CHUNKS.get((head[:4], head[8:12]))
    places = _places(head, layout) if layout is not None else {}
    if layout is None or layout.sound not in places:
        return
    place, declared = places[layout.sound]
    body = place + 4 + struct.calcsize(layout.size)
    wide = head[:4] == b"RF64" and declared == 0xFFFFFFFF and b"ds64" in places  # the true size stands in another chunk
    if wide:
        declared = struct.unpack("<Q", head[28:36])[0]
    end = body + declared + (declared & 1 if layout.first == 12 else 0)
    left = file.size - end
    if (declared == 0 and not wide) or declared < 0 or left <= 8 or _is_chunk(file, end, left, layout):
        return
    size = file.size - body
    if wide:
        file.patch(20, struct.pack("<QQ", file.size - 8, size))
        return
    if layout.first == 12:
        size = min(size, 0xFFFFFFFF - body)
        file.patch(4, struct.pack(layout.size, body + size - 8))
    file.patch(place + 4, struct.pack(layout.size, size))
    if b"COMM" in places:  # AIFF tells its samples, too
        at = places[b"COMM"][0] + 8
        channels, _, bits = struct.unpack(">HIH", head[at : at + 8])
        if head[8:12] == b"AIFF" or head[at + 18 : at + 22] in _PLAIN_AIFC:
            file.patch(at + 2, struct.pack(">I", (size - 8) // max(1, channels * ((bits + 7) // 8))))


def _places(head: bytes, layout: _Chunks) -> dict[bytes, tuple[int, int]]:
    """Name → (place, declared size) of the chunks that begin in `head`, up to the one with the sound."""
    found: dict[bytes, tuple[int, int]] = {}
    place, length = layout.first, 4 + struct.calcsize(layout.size)
    while layout.sound not in found and place + length <= len(head):
        size = struct.unpack(layout.size, head[place + 4 : place + length])[0]
        found[head[place : place + 4]] = place, size
        place += length + max(0, size) + (size & 1 if layout.first == 12 else 0)
    return found


def _is_chunk(file: SourceFile, place: int, left: int, layout: _Chunks) -> bool:
    length = 4 + struct.calcsize(layout.size)
    head = file.head(length, offset=place)
    if len(head) < length:
        return False
    size = struct.unpack(layout.size, head[4:])[0]
    named = all(byte < 0x80 and (byte == 0x20 or chr(byte).isalnum()) for byte in head[:4])
    return named and 0 <= size <= left - length


class _StreamInfo(NamedTuple):
    """STREAMINFO of a FLAC file (RFC 9639, 8.2). `longest` in bytes of a frame, `total` in samples; 0 is unknown."""

    least_block: int
    most_block: int
    longest: int
    rate: int
    channels: int
    bits: int
    total: int


def repair_flac(file: SourceFile, until_s: float | None, in_memory: bool) -> None:
    """Let a FLAC file whose STREAMINFO tells fewer samples than there are (or 0: its encoder was stopped) read as if it
    told them all, and mark one of several streams one behind the other as `joined`.

    `until_s`: what is to be read of it; the end is not looked at where the declared length suffices. `in_memory`: the
    file is, so that all of it may be searched.
    """
    head = file.head(42)
    if head[:4] != b"fLaC" or head[4] & 0x7F or len(head) < 42:
        return
    info = _stream_info(head)
    suspicious = file.size > _most_bytes(info, info.total)
    if until_s is not None and not suspicious and until_s * info.rate <= info.total:
        return
    total = max(info.total, _flac_end(file, info))
    if (in_memory and file.head(file.size).find(head[:8], 8) > 0) or (
        suspicious and file.size - _flac_metadata(file) > _most_bytes(info, total)
    ):
        file.joined = True
    elif total > info.total:
        file.patch(21, bytes([head[21] & 0xF0 | total >> 32]) + struct.pack(">I", total & 0xFFFFFFFF))


def _stream_info(head: bytes) -> _StreamInfo:
    least, most, longest, packed = (
        int.from_bytes(head[a:b], "big") for a, b in ((8, 10), (10, 12), (15, 18), (18, 26))
    )
    channels, bits = (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    return _StreamInfo(least, most, longest, packed >> 44, channels, bits, packed & (1 << 36) - 1)


def _most_bytes(info: _StreamInfo, samples: int) -> int:
    """What so many samples can take at most: frames of the greatest length, or uncompressed ones."""
    longest = info.longest or info.most_block * info.channels * (info.bits + 1) // 8 + 64
    return (samples // max(16, info.least_block) + 1) * longest + _MOST_TRAILER


_MOST_TRAILER = 8192  # bytes of padding and tags, which are no sound


def _flac_metadata(file: SourceFile) -> int:
    """Bytes of the blocks before the first frame, of which a picture may take millions."""
    place = 4
    while len(header := file.head(4, offset=place)) == 4:
        place += 4 + int.from_bytes(header[1:], "big")
        if header[0] & 0x80:
            break
    return place


def _flac_end(file: SourceFile, info: _StreamInfo) -> int:
    """Samples up to the end of the last frame, by its own number; 0 where no frame is found there.

    A number counts where the frame before it ends there too: what looks like a header may be sound.
    """
    span = min(file.size, max(1 << 16, 3 * info.longest))
    tail = file.head(span, offset=file.size - span)
    end = reached = 0
    at = tail.find(b"\xff")
    while 0 <= at < len(tail) - 6:
        frame = _flac_frame(tail[at : at + 16], info) if tail[at + 1] & 0xFE == 0xF8 else None
        if frame is not None:
            if frame[0] == reached:
                end = frame[0] + frame[1]
            reached = frame[0] + frame[1]
        at = tail.find(b"\xff", at + 1)
    return end


def _flac_frame(head: bytes, info: _StreamInfo) -> tuple[int, int] | None:
    """(first sample, samples) of the frame whose header stands there (RFC 9639, 9.1); None where none does."""
    size, rate, channels, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    there = channels + 1 if channels < 8 else 2
    known = (0, 8, 12, 0, 16, 20, 24, 32)[bits] or info.bits
    reserved = not size or rate == 15 or channels > 10 or bits == 3 or head[3] & 1
    if reserved or (there, known) != (info.channels, info.bits):
        return None
    more = f"{head[4]:08b}".find("0")  # the number is coded as in UTF-8, of up to seven bytes
    if more in (-1, 1):
        return None
    at = 4 + max(1, more)
    number = head[4] & (0x7F >> more)
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    wide = {6: 1, 7: 2}.get(size, 0)
    if wide:
        samples = int.from_bytes(head[at : at + wide], "big") + 1
    else:
        samples = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    at += wide + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return (number if head[1] & 1 else number * info.most_block), samples


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


def ogg_is_chained(file: SourceFile) -> bool:
    """Whether several Ogg streams stand one behind the other, as in a recorded broadcast: the last page belongs to none
    of the streams that begin the file."""
    head = file.head(HEAD_BYTES)
    if head[:4] != b"OggS":
        return False
    tail = _ogg_tail(file)
    last = tail.rfind(b"OggS")
    if last < 0 or len(tail) < last + 18:
        return False
    begun, at = set(), 0
    while head[at : at + 4] == b"OggS" and len(head) > at + 27 and head[at + 5] & 2:
        begun.add(head[at + 14 : at + 18])
        segments = head[at + 27 : at + 27 + head[at + 26]]
        at += 27 + len(segments) + sum(segments)
    return tail[last + 14 : last + 18] not in begun


def ogg_has_end(file: SourceFile) -> bool:
    """Whether the last page of an Ogg file carries the end-of-stream flag."""
    tail = _ogg_tail(file)
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


def _ogg_tail(file: SourceFile) -> bytes:
    return file.head(1 << 16, offset=max(0, file.size - (1 << 16)))  # a page has 64 kB at most
