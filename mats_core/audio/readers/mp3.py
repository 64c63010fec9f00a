"""MP3 (and MP1, MP2): every frame is found by its header, so a length is counted and a place is exact, whatever a Xing
header says and whatever stands between the frames.

A file is a chain of frames: each header tells how long its frame is, and so where the next one must be (ISO 11172-3,
2.4.1.3). What is not in the chain (tags, pictures, damage) is not heard. Frames are decoded one by one by FFmpeg, and
one that cannot be is silence of its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import av
import numpy as np
import numpy.typing as npt

from mats_core.audio.chunks import id3_size, tell_another
from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile, to_float
from mats_core.audio.readers.container import NO_ERRORS

_PIECE = 4 << 20
_PREROLL_FRAMES = 30  # decoded before the place sought: the bits of a frame begin in frames before it
_DECODER_DELAY = 529  # samples of every decoder, which delay and padding of a LAME header leave out
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR", b"3DI")
_MOST_TRAILER = 1 << 16  # bytes of tags behind the sound
_SAMPLED, _SAMPLE_BYTES, _FEWEST = 8, 1 << 15, 8
_TOLERATED = 0.1  # by how much frames seen here and there may be longer or shorter than the header tells


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


_BYTES, _PADDING, _SAMPLES, _RATES = _tables()


_SAME = 0b1111000011  # of these bits, those that are the same in all frames of a stream

_Numbers: TypeAlias = npt.NDArray[np.int64]


class Frames(NamedTuple):
    """Frames in the order of the file, int64 [N] each: the byte where they begin, their bytes, and the bits of their
    headers (an index of the tables)."""

    at: _Numbers
    size: _Numbers
    key: _Numbers

    @property
    def end(self) -> _Numbers:
        """The byte behind each."""
        return self.at + self.size


def _candidates(data: bytes, offset: int) -> Frames:
    """What looks like the header of a frame in `data`, which stands at `offset` of the file."""
    there = np.frombuffer(data, np.uint8)
    at = np.flatnonzero((there[:-2] == 0xFF) & (there[1:-1] >= 0xE2))
    second, third = there[at + 1].astype(np.int64), there[at + 2].astype(np.int64)
    key = (second >> 1 & 15) << 6 | third >> 2
    size = _BYTES[key] + _PADDING[key] * (third >> 1 & 1)
    known = _BYTES[key] > 0
    return Frames(at[known] + offset, size[known], key[known])


def _linked(found: Frames) -> Frames:
    """Those of the candidates that another one of the same stream stands behind, or before."""
    count = len(found.at)
    if not count:
        return found
    following = np.searchsorted(found.at, found.end)
    there = np.minimum(following, count - 1)
    leads = (found.at[there] == found.end) & (found.key[there] & _SAME == found.key & _SAME)
    follows = np.zeros(count, bool)
    follows[there[leads]] = True
    links = leads.astype(int) + follows
    kept = np.flatnonzero(links)
    while len(overlaps := np.flatnonzero(found.end[kept[:-1]] > found.at[kept[1:]])):
        # note: a header that sound happens to look like lies within a frame; it has the fewer links
        one, other = overlaps[0], overlaps[0] + 1
        kept = np.delete(kept, other if links[kept[one]] >= links[kept[other]] else one)
    return Frames(found.at[kept], found.size[kept], found.key[kept])


@dataclass(frozen=True)
class _Header:
    """What a Xing, Info or VBRI frame says. `frames` and `bytes` are 0 where it says nothing of them; `delay` and
    `padding`: samples before and behind the sound."""

    frames: int = 0
    bytes: int = 0
    delay: int = 0
    padding: int = 0


def _header(frame: bytes) -> _Header | None:
    """What the first frame says of the others; None where it is one of sound."""
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        size, count = struct.unpack(">II", frame[46:54])
        return _Header(count, size)
    place = max(frame[:64].find(b"Xing"), frame[:64].find(b"Info"))
    if place < 4 or len(frame) < place + 8:
        return None
    flags, at = frame[place + 7], place + 8
    numbers = [0, 0]
    for each in (0, 1):
        if flags >> each & 1:
            numbers[each], at = int.from_bytes(frame[at : at + 4], "big"), at + 4
    at += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    delay = padding = 0
    if frame[at : at + 4] in (b"LAME", b"Lavf", b"Lavc"):
        packed = int.from_bytes(frame[at + 21 : at + 24], "big")
        delay, padding = (packed >> 12) + _DECODER_DELAY, max(0, (packed & 0xFFF) - _DECODER_DELAY)
    return _Header(numbers[0], numbers[1], delay, padding)


class Mp3Source(Source):
    """A file of MPEG audio frames. Raises AudioError decode_failed where it is none."""

    reader = "mp3"
    passes_damage = True

    def __init__(self, file: SourceFile, kind: str = "mp3") -> None:
        self._file, self._kind = file, kind
        self.broken = False
        self._found: list[Frames] = []
        self._frames = _candidates(bytes(3), 0)  # none
        self._read_to = self._begin = id3_bytes(file)
        self._walk(0)
        frames = self._frames
        if len(frames.at) < 2 or frames.size.sum() * 10 < min(frames.at[-1], self._read_to) - self._begin:
            raise AudioError("decode_failed", "no chain of MPEG frames")
        head = file.head(4096, offset=int(frames.at[0]))
        self._header = _header(head[: int(frames.size[0])])
        self.sample_rate = int(_RATES[frames.key[-1]])
        self.channels = 1 if head[3] >> 6 == 3 else 2

    def close(self) -> None:
        pass  # nothing is held open

    def _walk(self, samples: int | None) -> None:
        """Find frames until they hold so many samples; None: until the end of the file."""
        while self._read_to < self._file.size and (samples is None or self._held() <= samples):
            piece = _PIECE if self._found else 1 << 18
            data = self._file.head(piece + 2, offset=self._read_to)
            self._found.append(_candidates(data, self._read_to))
            self._read_to = self._read_to + piece if len(data) == piece + 2 else self._file.size
            if samples is not None or self._read_to >= self._file.size:
                self._frames = _linked(Frames(*(np.concatenate(each) for each in zip(*self._found, strict=True))))

    def _held(self) -> int:
        return int(_SAMPLES[self._frames.key].sum())

    def _sound(self) -> tuple[Frames, _Numbers]:
        """The frames of sound found so far, and the source frames where they begin and the last ends: int64 [N + 1]."""
        frames = self._frames
        if self._header is not None:
            frames = Frames(*(each[1:] for each in frames))
        lengths = _SAMPLES[frames.key] * self.sample_rate // np.maximum(1, _RATES[frames.key])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return frames, starts - (self._header.delay if self._header else 0)

    def info(self) -> AudioInfo:
        header = self._header
        frames, starts = self._sound()
        if header is not None and header.frames:
            length = header.frames * int(_SAMPLES[frames.key[0]]) - header.delay - header.padding
            return self._info(length, "header")
        return self._info(int(starts[-1] / max(1, frames.end[-1] - self._begin) * self._file.size), "unknown")

    def _info(self, samples: int, source: Literal["header", "decoded", "unknown"]) -> AudioInfo:
        seconds = samples / self.sample_rate if samples > 0 else None
        return AudioInfo(self._kind, self.sample_rate, self.channels, seconds, source if seconds else "unknown")

    def checked(self, declared: AudioInfo) -> AudioInfo | None:
        """`declared` where frames here and there through a file of a store agree with it. A local file is counted."""
        header = self._header
        if not self._file.far or header is None or not header.frames or not self._tells_its_bytes(header):
            return None
        sizes = []
        for number in range(_SAMPLED):
            place = self._begin + (self._file.size - self._begin - _SAMPLE_BYTES) * number // _SAMPLED
            seen = _linked(_candidates(self._file.head(_SAMPLE_BYTES, offset=max(self._begin, place)), place))
            if len(seen.at) < _FEWEST:
                return None
            sizes.append(float(seen.size.mean()))
        mean = header.bytes / header.frames
        return declared if abs(np.mean(sizes) / mean - 1) < _TOLERATED else None

    def _tells_its_bytes(self, header: _Header) -> bool:
        """Whether there are as many bytes as the header says, but for tags behind the sound."""
        return -self._frames.size[0] <= self._file.size - self._frames.at[0] - header.bytes <= _MOST_TRAILER

    def counted(self) -> AudioInfo:
        """The length that all frames tell."""
        self._walk(None)
        length = self._end_frame()
        same = self._header is not None and self._header.frames == len(self._sound()[0].at)
        return self._info(length, "header" if same else "decoded")

    def _end_frame(self) -> int:
        """Source frame where the sound ends, all frames being found."""
        frames, starts = self._sound()
        same = self._header is not None and self._header.frames == len(frames.at)
        return int(starts[-1]) - (self._header.padding if self._header and same else 0)

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        delay = self._header.delay if self._header else 0
        self._walk(None if stop is None else stop + delay + 4 * 1152)
        frames, starts = self._sound()
        ended = self._read_to >= self._file.size
        end = self._end_frame() if ended else int(starts[-1])
        until = end if stop is None else min(stop, end)
        if ended and (stop is None or stop >= end):
            self._end = end
        begin = max(0, int(np.searchsorted(starts, first, side="right")) - 1 - _PREROLL_FRAMES)
        behind = min(len(frames.at), int(np.searchsorted(starts, until, side="right")))
        data, offset, ends = b"", 0, frames.end
        decoder = av.CodecContext.create("mp3float", "r")
        for number in range(begin, behind):
            at, size = int(frames.at[number]), int(frames.size[number])
            if not offset <= at <= at + size <= offset + len(data):
                data, offset = self._file.head(max(size, 1 << 20), offset=at), at
            start, length = int(starts[number]), int(starts[number + 1] - starts[number])
            block = _decode(decoder, data[at - offset : at - offset + size], int(_SAMPLES[frames.key[number]]))
            heard = slice(max(0, first - start), max(0, min(length, until - start)))
            if heard.start >= heard.stop:
                continue
            if number:
                self._count_hole(int(ends[number - 1]), at, frames)
            rate = int(_RATES[frames.key[number]])
            if block is None:
                self._lose((heard.stop - heard.start) / self.sample_rate)
                yield np.zeros((heard.stop - heard.start, self.channels), np.float32), self.sample_rate
            elif rate == self.sample_rate:
                yield block[heard], rate
            else:
                yield block[heard.start * rate // self.sample_rate : heard.stop * rate // self.sample_rate], rate
        self._file.check()

    def _count_hole(self, first: int, stop: int, frames: Frames) -> None:
        """Take in what stands between two frames: it is lost where it is no tag."""
        if stop > first and self._file.head(3, offset=first) not in _TAGS:
            self._lose((stop - first) / float(frames.size.mean()) * float(_SAMPLES[frames.key[0]]) / self.sample_rate)

    def _lose(self, seconds: float) -> None:
        self.broken = True
        self.lost_s += seconds

    def ended_early(self) -> bool:
        if self._end is None:
            return False
        header, frames = self._header, self._sound()[0]
        end = int(frames.end[-1])
        if self._file.cut or end > self._file.size or tell_another(self._file, end):
            return True
        short = header is not None and len(frames.at) + 2 < header.frames
        return bool(short and header and header.bytes > self._file.size - self._frames.at[0])


def _decode(decoder: Any, frame: bytes, samples: int) -> Block | None:
    """The samples of a frame, float32 [samples, C]; None where it does not decode."""
    try:
        for decoded in decoder.decode(av.Packet(frame)):
            if decoded.samples == samples:
                return to_float(decoded)
    except (av.error.FFmpegError, *NO_ERRORS):
        pass
    return None


def id3_bytes(file: SourceFile) -> int:
    """Bytes of the ID3 tags that a file begins with; they may hold pictures."""
    place = 0
    while size := id3_size(file.head(10, offset=place)):
        place += size
    return min(place, file.size)
