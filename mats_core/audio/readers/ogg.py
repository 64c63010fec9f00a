"""Ogg: its pages, where the last whole one ends, its streams; and files one behind the other heard as one sound."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mats_core.audio.chunks import tell_another
from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.readers.ffmpeg import FfmpegSource
from mats_core.audio.signatures import HEAD_BYTES, sniff

_TAIL = 1 << 16  # a page has 65 307 bytes at most, so that one begins in there
_SMALL = 1 << 20  # looked through from page to page
_BLOCK = 1 << 20
_NO_GRANULE = (1 << 64) - 1


class _Page(NamedTuple):
    """`place` and `size` in bytes; `granule`: the time at its end, in the stream's own unit; `lacing`: its segments."""

    place: int
    size: int
    begins: bool
    ends: bool
    granule: int
    serial: int
    number: int
    lacing: bytes


def repair_ogg(file: SourceFile) -> None:
    """Let an Ogg file end with its last whole page, and find the streams in it: `links` where there are several one
    behind the other, `cut` where the last does not end, `joined` where the length its last page tells is impossible.

    Raises AudioError with a storage code where reading fails.
    """
    head = file.head(HEAD_BYTES)
    if head[:4] != b"OggS":
        return
    first = max(0, file.size - 2 * _TAIL)
    tail = file.head(2 * _TAIL, offset=first)
    pages = list(_pages(tail, first))
    if not pages:
        file.cut, file.joined = any(tail), True  # FFmpeg guesses its length
        return
    last = pages[-1]
    end = last.place + last.size
    file.cut = not last.ends or tail.find(b"OggS", end - first) >= 0
    if end < file.size:
        file.cut = tell_another(file, end) or file.cut
        file.present(b"", 0, end)
    begun = _begun(head)
    if file.size <= _SMALL or last.serial not in begun or (len(begun) == 1 and _starts_anew(file, pages)):
        file.links = _links(file)
    if len(file.links) < 2:
        file.links = []
        file.joined = len(begun) == 1 and _lies(head, tail, first, pages)


def _page(data: bytes, at: int, offset: int) -> _Page | None:
    """The page that begins at data[at], where all of it is there; `offset`: the place of `data` in the file."""
    if data[at : at + 5] != b"OggS\0" or len(data) < at + 27:
        return None
    lacing = data[at + 27 : at + 27 + data[at + 26]]
    size = 27 + data[at + 26] + sum(lacing)
    if len(data) < at + size:
        return None
    granule, serial, number = (
        int.from_bytes(data[at + a : at + b], "little") for a, b in ((6, 14), (14, 18), (18, 22))
    )
    return _Page(offset + at, size, bool(data[at + 5] & 2), bool(data[at + 5] & 4), granule, serial, number, lacing)


def _pages(data: bytes, offset: int) -> Iterator[_Page]:
    """The whole pages in `data`; what is none between them is passed over."""
    at = data.find(b"OggS")
    while at >= 0:
        page = _page(data, at, offset)
        if page is not None:
            yield page
        at = data.find(b"OggS", at + (4 if page is None else page.size))


def _begun(head: bytes) -> set[int]:
    """Serial numbers of the streams that begin the file: several where a film has its sound in it."""
    begun: set[int] = set()
    at = 0
    while (page := _page(head, at, 0)) is not None and page.begins:
        begun.add(page.serial)
        at += page.size
    return begun


def _starts_anew(file: SourceFile, pages: list[_Page]) -> bool:
    """Whether the pages' numbers begin again within a large file, by four looks into it, where the last page's number
    is too low for so many bytes in pages like the last ones."""
    usual, last = sum(page.size for page in pages) / len(pages), pages[-1]
    if file.size < 1.25 * usual * (last.number + 1):
        return False
    numbers = []
    for part in range(1, 5):
        place = file.size * part // 5
        page = next(_pages(file.head(2 * _TAIL, offset=place), place), None)
        if page is not None and page.serial != last.serial:
            return True
        numbers += [page.number] if page is not None else []
    return any(later < earlier for earlier, later in pairwise([*numbers, last.number]))


def _links(file: SourceFile) -> list[tuple[int, int]]:
    """[begin, end) of the streams one behind the other, each with those that stand in it side by side."""
    begins, place, beginning = [0], 0, True
    while place < file.size:
        data = file.head(_BLOCK, offset=place)
        if not data:
            break
        behind = place
        for page in _pages(data, place):
            if page.begins and not beginning:
                begins.append(page.place)
            beginning = page.begins
            behind = page.place + page.size
        place = behind if behind > place else place + len(data) - min(len(data) - 1, 2 * _TAIL)
        if len(data) < _BLOCK:
            break
    return list(zip(begins, [*begins[1:], file.size], strict=True))


def _lies(head: bytes, tail: bytes, offset: int, pages: list[_Page]) -> bool:
    """Whether the last page tells a time that its packets cannot reach from the page before it."""
    timed = [page for page in pages if page.granule != _NO_GRANULE and page.serial == pages[-1].serial]
    if not timed:
        return True
    most = {b"OpusHead": 5760, b"\x01vorbis": 1 << max(0, (head[56] >> 4) - 1) if len(head) > 56 else 4096}
    samples = next((most[magic] for magic in most if head[28:].startswith(magic)), None)
    if samples is None or (pages[0].place == 0 and len(timed) < 2):
        return False
    before, last = (timed[-2].granule if len(timed) > 1 else 0), timed[-1]
    if last.number != (timed[-2].number + 1 if len(timed) > 1 else last.number):
        return last.granule < before  # pages are missing in between
    if head[28:36] == b"OpusHead":
        reach = sum(_opus_samples(packet) for packet in _packets(tail, last, offset))
    else:
        reach = sum(length < 255 for length in last.lacing) * samples
    return not before <= last.granule <= before + reach


def _packets(data: bytes, page: _Page, offset: int) -> Iterator[bytes]:
    """The packets that end on a page; of the first, what is on it."""
    at = first = page.place - offset + 27 + len(page.lacing)
    for length in page.lacing:
        at += length
        if length < 255:
            yield data[first:at]
            first = at


def _opus_samples(packet: bytes) -> int:
    """Samples at 48 kHz, by the first bytes (RFC 6716, 3.1)."""
    if not packet:
        return 0
    mode = packet[0] >> 3
    if mode < 12:
        frame = (480, 960, 1920, 2880)[mode & 3]
    elif mode < 16:
        frame = (480, 960)[mode & 1]
    else:
        frame = 120 << (mode & 3)
    count = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    return frame * count


class Joined(Source):
    """Several files (of Ogg: streams) one behind the other as one sound, whatever their channels, rates and codecs:
    each is opened for itself, and heard behind the one before. Rate and channels are those of the first; blocks come
    with their own.

    Raises AudioError decode_failed where none can be decoded.
    """

    reader = "ffmpeg"
    passes_damage = True

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._links = [file.part(*link) for link in file.links]
        self._lengths: dict[int, float] = {}  # seconds of the links that were looked at
        self.broken = False
        first = next((source for link in self._links if (source := self._opened(link)) is not None), None)
        if first is None:
            raise AudioError("decode_failed", "no stream of it can be decoded")
        with first:
            self.sample_rate, self.channels, self._format = first.sample_rate, first.channels, first.info().format

    def _opened(self, link: SourceFile) -> FfmpegSource | None:
        """One of the streams; None where it holds no sound that can be decoded."""
        try:
            return FfmpegSource(link, sniff(link.head(HEAD_BYTES)))
        except AudioError as error:
            if error.code not in ("decode_failed", "not_audio"):
                raise
            return None

    def _seconds(self, at: int) -> float:
        """The length of one of the streams."""
        if at not in self._lengths:
            source = self._opened(self._links[at])
            self._lengths[at] = 0.0
            if source is not None:
                with source:
                    info = source.checked(source.info()) or source.counted()
                self._lengths[at] = (info and info.duration_s) or 0.0
        return self._lengths[at]

    def info(self) -> AudioInfo:
        return AudioInfo(self._format, self.sample_rate, self.channels, None, "unknown")

    def counted(self) -> AudioInfo:
        seconds = sum(self._seconds(at) for at in range(len(self._links)))
        return AudioInfo(self._format, self.sample_rate, self.channels, seconds, "decoded")

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        begin = 0.0
        for at, link in enumerate(self._links):
            if stop is not None and begin * self.sample_rate >= stop:
                return
            end = begin + self._seconds(at)
            if end * self.sample_rate > first or end == begin:
                until = end if stop is None else min(end, stop / self.sample_rate)
                yield from self._of_link(link, max(0.0, first / self.sample_rate - begin), until - begin)
            begin = end
        self._end = round(begin * self.sample_rate)

    def _of_link(self, link: SourceFile, first_s: float, stop_s: float) -> Iterator[tuple[Block, int]]:
        source = self._opened(link)
        if source is None:
            self.broken = True
            return
        with source:
            rate = source.sample_rate
            first, stop = round(first_s * rate), round(stop_s * rate)
            for block, block_rate in source.blocks(first, stop):
                yield block, block_rate
                first += round(len(block) * rate / block_rate)
            self.broken, self.lost_s = self.broken or source.broken, self.lost_s + source.lost_s
            if first < stop:  # what could not be decoded takes its time
                yield np.zeros((stop - first, 1), np.float32), rate

    def ended_early(self) -> bool:
        return self._end is not None and self._file.cut

    def close(self) -> None:
        """Nothing stays open between two reads."""
