"""Formats that libsndfile knows, through soundfile: WAV, FLAC, AIFF, Ogg, MP3, … with exact seeks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import soundfile

from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.signatures import Signature

_BLOCK_FRAMES = 1 << 16


class _UnseekingSoundFile(soundfile.SoundFile):
    """soundfile seeks to where it already is after every read, which costs time and, in MP3, up to 2000
    wrong samples (a decoder that has been sought starts without the bits of the frames before). So soundfile is
    told that the file cannot be sought; `seek` still works."""

    def seekable(self) -> bool:
        return False


class LibsndfileSource(Source):
    """A file opened with libsndfile. Raises what soundfile raises, and AudioError where reading fails."""

    reader = "libsndfile"

    def __init__(self, file: SourceFile, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        self._sound = _UnseekingSoundFile(file, "r")
        file.check()
        self.sample_rate = int(self._sound.samplerate)
        self.channels = int(self._sound.channels)
        self.frames = int(self._sound.frames)
        self.broken = False
        self._end: int | None = None  # frame where reading found the end

    def close(self) -> None:
        self._sound.close()

    def info(self) -> AudioInfo:
        kind = self._file.format or self._sound.format.lower()
        frames = self.frames
        seconds: float | None = frames / max(self.sample_rate, 1)
        source: Literal["header", "unknown"] = "header"
        if frames <= 0 or kind == "mp3":
            source = "unknown"  # what a header tells, or an estimate from the first frames' bit rate
        if kind == "flac" and self._file.frames is None:
            seconds, source = None, "unknown"  # no frame was found at its end
        return AudioInfo(kind, self.sample_rate, self.channels, seconds, source)

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        # a block's memory is bounded whatever the header declares
        frames = max(256, _BLOCK_FRAMES // max(1, self.channels // 2))
        if not self._seek(first):
            return
        position = first
        while stop is None or position < stop:
            wanted = frames if stop is None else min(frames, stop - position)
            try:
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError):
                self._file.check()
                self.broken = True
                yield from self._rescue(position, position + wanted)
                return
            self._file.check()
            if len(block):
                yield block, self.sample_rate
            position += len(block)
            if len(block) < wanted:
                self._end = position
                return

    def _seek(self, frame: int) -> bool:
        """Go to a frame; False where the file does not reach it. AudioError decode_failed where another reader is to
        try: the file is damaged before this place, or of a codec in which libsndfile does not seek."""
        if frame == 0:
            return True
        if frame >= self.frames:
            self._end = self.frames
            return False
        try:
            self._sound.seek(frame)
        except (soundfile.LibsndfileError, RuntimeError):
            self._file.check()
            raise AudioError("decode_failed", "it cannot be sought") from None
        return True

    def _rescue(self, first: int, stop: int) -> Iterator[tuple[Block, int]]:
        """The frames before the damage, read anew in small blocks: a failed read of a large block threw them away."""
        try:
            self._file.seek(0)
            with _UnseekingSoundFile(self._file, "r") as again:
                again.seek(first)
                for _ in range(first, stop, 256):
                    block = again.read(256, dtype="float32", always_2d=True)
                    if not len(block):
                        return
                    yield block, self.sample_rate
        except (soundfile.LibsndfileError, RuntimeError):
            return

    def ended_early(self) -> bool:
        if self._end is None:
            return False
        return self._file.cut or (self._signature.name == "FLAC" and self._end < self.frames - self.sample_rate // 10)
