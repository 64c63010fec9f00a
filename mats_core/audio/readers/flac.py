"""FLAC by its own frames: the length that the last one tells, and a damaged file frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import av
import numpy as np

from mats_core.audio.chunks import without_tag
from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile, to_float
from mats_core.audio.readers.container import NO_ERRORS


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
    """Let a FLAC file whose STREAMINFO tells another length than its last frame read as if it told that one (0: its
    encoder was stopped), without the tags behind it, and mark one of several streams one behind the other as `joined`.

    `until_s`: what is to be read of it; the end is not looked at where the declared length suffices. `in_memory`: the
    file is, so that all of it may be searched. Sets `frames`, where a last frame is found, and `cut`.
    """
    head = file.head(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F:
        return
    info = _stream_info(head)
    suspicious = file.size > _most_bytes(info, info.total)
    if not info.rate or (until_s is not None and not suspicious and until_s * info.rate <= info.total):
        return
    found = _flac_end(file, info, without_tag(file, file.size))
    total = max(info.total, found.samples)
    file.cut = file.cut or (not found.whole and any(file.head(1 << 16, offset=max(0, file.size - (1 << 16)))))
    if (in_memory and file.head(file.size).find(head[:8], 8) > 0) or (
        suspicious and file.size - _flac_metadata(file) > _most_bytes(info, total)
    ):
        file.joined = True
    elif found.samples:
        file.joined = found.stop > 1.5 * found.density * found.samples and _starts_anew(file, info, found)
        file.frames = found.samples
        if found.samples < info.total or not found.whole:
            file.cut, file.missing = True, max(0, info.total - found.samples) / found.samples
        count = bytes([head[21] & 0xF0 | found.samples >> 32]) + struct.pack(">I", found.samples & 0xFFFFFFFF)
        file.present(head[:21] + count + head[26:], len(head), found.stop)


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


class _End(NamedTuple):
    """The end of a FLAC file: `samples` up to that of the last whole frame (0: none was found), whether it is the last
    one, the byte behind it, and the bytes a sample takes there."""

    samples: int
    whole: bool
    stop: int
    density: float


def _flac_end(file: SourceFile, info: _StreamInfo, stop: int) -> _End:
    """What the last frames before `stop` tell."""
    for span in (max(1 << 16, 3 * info.longest), 1 << 20):
        first = max(0, stop - span)
        tail = file.head(stop - first, offset=first)
        frames = _flac_frames(tail, info)
        if frames:
            place, begin, end = frames[-1]
            density = (len(tail) - frames[0][0]) / max(1, end - frames[0][1])
            last = tail[place:]
            padded = len(last) - len(last.rstrip(b"\0"))
            # note: the last bytes of the checksum itself may be zeros; and zeros behind it leave it valid
            for padding in (padded, padded - 1, padded - 2, 0) if padded > 2 else (0,):
                if _crc16(last[: len(last) - padding]) == 0:
                    return _End(end, True, stop - padding, density)
            return _End(begin, False, stop, density)
        if first == 0:
            break
    return _End(0, False, stop, 0.0)


def _starts_anew(file: SourceFile, info: _StreamInfo, end: _End) -> bool:
    """Whether the frames' numbers begin again within the file, by four looks into it."""
    span = max(1 << 16, 3 * info.longest)
    looks = [_flac_frames(file.head(span, offset=end.stop * part // 5), info) for part in range(1, 5)]
    numbers = [*(frames[-1][1] for frames in looks if frames), end.samples]
    return any(later < earlier for earlier, later in pairwise(numbers))


def _flac_frames(data: bytes, info: _StreamInfo) -> list[tuple[int, int, int]]:
    """(place, first sample, end) of the frames that begin in `data`, of which each counts where one before it ends, one
    behind it begins, or the stream begins: what looks like a frame's header may be sound."""
    found = []
    at = data.find(b"\xff")
    while 0 <= at < len(data) - 6:
        frame = _flac_frame(data[at : at + 16], info) if data[at + 1] & 0xFE == 0xF8 else None
        if frame is not None:
            found.append((at, frame[0], sum(frame)))
        at = data.find(b"\xff", at + 1)
    frames: list[tuple[int, int, int]] = []
    ends, begins = {0}, {begin for _, begin, _ in found}
    for place, begin, end in found:
        if begin in ends or (end in begins and (not frames or begin >= frames[-1][2])):
            frames.append((place, begin, end))
        ends.add(end)
    return frames


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


def frame_places(codec_context: Any) -> Callable[[Any], float | None] | None:
    """Packet of a FLAC track in a container → seconds where it begins by its own header, None where that is damaged;
    None for a track of another codec, or without STREAMINFO."""
    header = bytes(codec_context.extradata or b"")
    if codec_context.name != "flac" or len(header) != 34 or not (info := _stream_info(bytes(8) + header)).rate:
        return None

    def place(packet: Any) -> float | None:
        frame = _flac_frame(bytes(memoryview(packet)[:16]), info) if packet.size >= 16 else None
        return None if frame is None else frame[0] / info.rate

    return place


class FlacSource(Source):
    """A damaged FLAC file by its frames, each of which tells its place. One whose checksum is wrong is heard as far as
    it decodes, and counts as lost. Raises AudioError decode_failed where its header is damaged.
    """

    reader = "flac"
    passes_damage = True

    def __init__(self, file: SourceFile) -> None:
        self._file, self.broken = file, False
        self._head = file.head(42)
        if self._head[:4] != b"fLaC" or len(self._head) < 42 or not (header := _stream_info(self._head)).rate:
            raise AudioError("decode_failed", "its header is damaged")
        self._header, self.sample_rate, self.channels = header, header.rate, header.channels
        if next(self._frames(1 << 36), None) is None:
            raise AudioError("decode_failed", "no frame of it is whole")

    def close(self) -> None:
        """Nothing is held open."""

    def info(self) -> AudioInfo:
        seconds = self._header.total / self.sample_rate
        return AudioInfo("flac", self.sample_rate, self.channels, seconds or None, "header" if seconds else "unknown")

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        strict, lenient = (self._decoder(check) for check in ("crccheck+explode", "ignore_err"))
        position, until = first, min(self._header.total or 1 << 36, 1 << 36 if stop is None else stop)
        for begin, end, data in self._frames(until):
            if end <= position or begin >= until:
                continue
            block = _decoded(strict, data, end - begin)
            if block is None:
                block = _decoded(lenient, data, end - begin)
                self._lose(min(end, until) - max(begin, position))
            if begin > position:
                self._lose(begin - position)
                yield np.zeros((begin - position, self.channels), np.float32), self.sample_rate
            if block is None:
                block = np.zeros((end - begin, self.channels), np.float32)
            yield block[max(0, position - begin) : until - begin], self.sample_rate
            position = min(end, until)
        self._file.check()
        if stop is None or position < stop:
            self._end = position

    def _frames(self, until: int) -> Iterator[tuple[int, int, bytes]]:
        """(first sample, end, bytes) of the frames up to sample `until`."""
        place = 0
        while place < self._file.size:
            data = self._file.head(_PIECE, offset=place)
            frames = _flac_frames(data, self._header)
            last = place + len(data) >= self._file.size
            stops = [at for at, _, _ in frames[1:]] + [len(data)]
            for (at, begin, end), behind in zip(frames, stops, strict=False):
                if begin >= until:
                    return
                if last or behind < len(data):
                    yield begin, end, data[at:behind]
            place += len(data) if last or not frames or not frames[-1][0] else frames[-1][0]

    def _decoder(self, check: str) -> Any:
        decoder = av.CodecContext.create("flac", "r")
        decoder.extradata, decoder.options = self._head[8:42], {"err_detect": check}
        return decoder

    def _lose(self, samples: int) -> None:
        self.broken = True
        self.lost_s += samples / self.sample_rate

    def ended_early(self) -> bool:
        if self._end is None:
            return False
        return self._file.cut or self._end < self._header.total - self.sample_rate // 10


_PIECE = 4 << 20


def _decoded(decoder: Any, frame: bytes, samples: int) -> Block | None:
    """The samples of a frame, float32 [samples, C]; None where it does not decode."""
    try:
        return next((to_float(each) for each in decoder.decode(av.Packet(frame)) if each.samples == samples), None)
    except (av.error.FFmpegError, *NO_ERRORS):
        return None


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ _CRC16[value >> 8 ^ byte]
    return value


def _crc16_table() -> list[int]:
    table = []
    for value in range(256):
        value <<= 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
        table.append(value)
    return table


_CRC16 = _crc16_table()
