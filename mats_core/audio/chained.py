"""Ogg streams one behind the other in a file (a recorded broadcast): each is opened by itself, whatever its codec, rate
and channels are, and heard behind the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mats_core.audio.ffmpeg import FfmpegSource
from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.repair import ogg_has_end
from mats_core.audio.signatures import HEAD_BYTES, sniff

_PAGE = 27  # bytes of a page's header, before the table of its segments
_FIRST_PAGE = 2  # flag of the page that a stream begins with
_SEARCHED = 1 << 16  # bytes a page has at most


def streams(file: SourceFile) -> list[tuple[int, int]]:
    """(first byte, bytes) of each of the streams one behind the other: one begins where a first page follows one that
    is none. Raises AudioError with a storage code."""
    begins: list[int] = []
    place, in_head = 0, False
    while len(head := file.head(_PAGE + 255, offset=place)) > _PAGE:
        if head[:4] != b"OggS":  # damage: the next page is looked for
            found = file.head(_SEARCHED, offset=place + 1).find(b"OggS")
            place += 1 + found if found >= 0 else _SEARCHED
            continue
        is_first = bool(head[5] & _FIRST_PAGE)
        if is_first and not in_head:
            begins.append(place)
        in_head = is_first
        place += _PAGE + head[26] + sum(head[_PAGE : _PAGE + head[26]])
    return [(begin, end - begin) for begin, end in zip(begins, [*begins[1:], file.size], strict=True)]


class ChainedSource(Source):
    """The sound of such a file. Rate and channels are those of the first stream; blocks come with their own.

    Raises AudioError decode_failed where none of the streams can be decoded.
    """

    reader = "ffmpeg"
    passes_damage = True

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._parts = streams(file)
        self._lengths: list[int | None] = [None] * len(self._parts)  # source frames; None is not known yet
        self.broken = False
        first = next((each for at in range(len(self._parts)) if (each := self._opened(at)) is not None), None)
        if first is None:
            raise AudioError("decode_failed", "no stream of it can be decoded")
        with first:
            self.sample_rate, self.channels, self._kind = first.sample_rate, first.channels, first.info().format

    def _opened(self, at: int) -> FfmpegSource | None:
        """One of the streams; None where it holds no sound that can be decoded."""
        part = self._file.part(*self._parts[at])
        try:
            return FfmpegSource(part, sniff(part.head(HEAD_BYTES)))
        except AudioError as error:
            self._file.check()
            if error.code not in ("decode_failed", "not_audio"):
                raise
            return None

    def _length(self, at: int) -> int:
        """Source frames of one of the streams."""
        length = self._lengths[at]
        if length is None:
            source = self._opened(at)
            if source is None:
                length = 0
            else:
                with source:
                    declared = source.info()
                    info = source.checked(declared) or source.counted()
                length = round(((info or declared).duration_s or 0.0) * self.sample_rate)
            self._lengths[at] = length
        return length

    def close(self) -> None:
        pass  # streams are closed as they are read

    def info(self) -> AudioInfo:
        return AudioInfo(self._kind, self.sample_rate, self.channels, None, "unknown")

    def counted(self) -> AudioInfo | None:
        frames = sum(self._length(at) for at in range(len(self._parts)))
        return replace(self.info(), duration_s=frames / self.sample_rate, duration_source="decoded") if frames else None

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        begin = 0
        for at in range(len(self._parts)):
            length = self._length(at)
            end = begin + length
            if end > first and (stop is None or begin < stop):
                yield from self._blocks_of(
                    at, max(0, first - begin), length if stop is None else min(length, stop - begin)
                )
            begin = end
        if stop is None or stop >= begin:
            self._end = begin

    def _blocks_of(self, at: int, first: int, stop: int) -> Iterator[tuple[Block, int]]:
        """Source frames [first, stop) of one of the streams."""
        source = self._opened(at)
        if source is None:
            self.broken = True
            return
        with source:
            scale = source.sample_rate / self.sample_rate
            yield from source.blocks(round(first * scale), round(stop * scale))
            self.broken = self.broken or source.broken
            self.lost_s += source.lost_s

    def ended_early(self) -> bool:
        return self._end is not None and not ogg_has_end(self._file)
