"""Ogg: its pages, where the last whole one ends, and streams that stand one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.signatures import HEAD_BYTES

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
        return
    last = pages[-1]
    end = last.place + last.size
    file.cut = not last.ends or tail.find(b"OggS", end - first) >= 0
    if end < file.size:
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


class OggLinks(Source):
    """Several Ogg streams one behind the other as one sound, whatever their channels, rates and codecs: each is opened
    by `open_link` for itself. A stream that cannot be decoded is passed over, and the file counts as broken.

    Raises AudioError where none can be decoded.
    """

    reader = "ffmpeg"

    def __init__(self, file: SourceFile, open_link: Callable[[SourceFile], Source]) -> None:
        self._file, self._open = file, open_link
        self._links: list[tuple[SourceFile, int, int]] = []  # with its length in frames, and its rate
        self.broken = False
        self._ended = False
        first: AudioInfo | None = None
        for start, stop in file.links:
            link = file.part(start, stop)
            try:
                with open_link(link) as source:
                    info = source.info()
                    if info.duration_s is None or info.duration_source == "unknown":
                        seconds = sum(len(block) / rate for block, rate in source.blocks(0, None))
                    else:
                        seconds = info.duration_s
            except AudioError as error:
                if error.code not in ("decode_failed", "empty_audio", "not_audio"):
                    raise
                self.broken = True
                continue
            first = first or info
            self._links.append((link, round(seconds * info.sample_rate), info.sample_rate))
        if first is None:
            raise AudioError("decode_failed", "no stream of it can be decoded")
        self._format, self.sample_rate, self.channels = first.format, first.sample_rate, first.channels

    def info(self) -> AudioInfo:
        seconds = sum(frames / rate for _, frames, rate in self._links)
        return AudioInfo(self._format, self.sample_rate, self.channels, seconds, "header")

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        begin = 0.0
        for link, frames, rate in self._links:
            skip = max(0, round((first / self.sample_rate - begin) * rate))
            last = frames if stop is None else min(frames, round((stop / self.sample_rate - begin) * rate))
            begin += frames / rate
            if skip < last:
                yield from self._of_link(link, skip, last, rate)
        self._ended = stop is None or stop / self.sample_rate > begin

    def _of_link(self, link: SourceFile, first: int, stop: int, rate: int) -> Iterator[tuple[Block, int]]:
        with self._open(link) as source:
            for block, block_rate in source.blocks(first, stop):
                block = block[: max(0, stop - first)]
                first += len(block)
                yield block, block_rate
            self.broken = self.broken or source.broken
        if first < stop:  # what could not be decoded takes its time
            yield np.zeros((stop - first, 1), np.float32), rate

    def ended_early(self) -> bool:
        return self._ended and self._file.cut

    def close(self) -> None:
        """Nothing stays open between two reads."""
