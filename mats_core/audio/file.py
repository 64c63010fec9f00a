"""What every reader needs: a file that C decoders may read, an opened source, what its header says, AudioError."""

from __future__ import annotations

import io
import os
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mats_core.errors import CodedError
from mats_core.storage import error_from
from mats_core.storage.reading import Slice

Block: TypeAlias = npt.NDArray[np.float32]
Reader: TypeAlias = Literal["libsndfile", "ffmpeg", "mp3"]
LEAST_BITS_A_SECOND = 500  # less than silence costs in any codec: such a header lies about its duration


class AudioError(CodedError):
    """A file that gives no audio. `code` is one of DESIGN.md's error codes, `message` is for people."""


def as_audio_error(error: BaseException) -> AudioError:
    """What went wrong in reading a file, with the code that storage gives it."""
    if isinstance(error, AudioError):
        return error
    coded = error_from(error, "the file")
    return AudioError(coded.code, coded.message)


@dataclass(frozen=True)
class AudioInfo:
    """What a header says. `sample_rate` in Hz. `duration_s` is None where nothing is known;
    `duration_source` is "header" for a declared length, "decoded" for a counted one, "unknown" for none or
    an estimate."""

    format: str
    sample_rate: int
    channels: int
    duration_s: float | None
    duration_source: Literal["header", "decoded", "unknown"]


class Source(AbstractContextManager["Source"]):
    """One opened file: its header, and its samples in blocks. Closed at the end of a `with`."""

    reader: Reader
    sample_rate: int  # Hz
    channels: int
    broken: bool  # whether decoding met damage so far
    passes_damage: bool = False  # whether it reads on behind damage, with silence in its place
    lost_s: float = 0.0  # seconds of the stretches read so far that could not be decoded, as far as known
    _end: int | None = None  # frame where reading found the end

    @abstractmethod
    def info(self) -> AudioInfo:
        """What the header says."""

    def checked(self, declared: AudioInfo) -> AudioInfo | None:
        """`declared` (what `info` said), or with another length where the file tells that; None where only counting can
        tell. Nothing is to be read from the source afterwards."""
        return declared if declared.duration_source == "header" else None

    def counted(self) -> AudioInfo | None:
        """As `info`, with the length counted from first to last; None where this reader cannot. Nothing is to be read
        from the source afterwards."""
        return None

    @abstractmethod
    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        """Source frames [first, stop) as (float32 [T, C], their sample rate); stop=None for all."""

    @abstractmethod
    def ended_early(self) -> bool:
        """Whether the file ends before what its header declares."""

    @abstractmethod
    def close(self) -> None:
        """End the decoder; the file stays open."""

    @property
    def end_s(self) -> float | None:
        """Where reading found the end of the sound, in seconds; None where it did not come so far."""
        return None if self._end is None else self._end / self.sample_rate

    @property
    def declared_s(self) -> float | None:
        """Its length by the header, in seconds; None where nothing is known."""
        return self.info().duration_s

    def __exit__(self, *error: object) -> None:
        self.close()


class _Borrowed(Slice):
    """A part of a file that others read, too."""

    def close(self) -> None:
        pass


class SourceFile:
    """A seekable file for C decoders, which no exception may cross: what reading raises looks to them like the end of
    the file, and `check` raises it afterwards. The same goes for time beyond `deadline` (of `time.monotonic`).

    It has no `name`, so that no decoder guesses by it. Raises AudioError with a storage code where the file cannot be
    sought.
    """

    def __init__(self, file: BinaryIO, deadline: float = float("inf")) -> None:
        self._file = file
        self._deadline = deadline
        self._error: BaseException | None = None
        self._overdue = False
        self.far = isinstance(file, io.RawIOBase)  # in a store or an archive, where reading all of it costs
        self._patches: list[tuple[int, bytes]] = []
        self.joined = False  # several streams one behind the other: places in it are found by counting alone
        try:
            self.size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except Exception as error:
            raise as_audio_error(error) from None

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, patched; none after an error or the deadline."""
        self._overdue = self._overdue or (self._error is None and time.monotonic() > self._deadline)
        if self._error is not None or self._overdue:
            return b""
        try:
            at = self._file.tell() if self._patches else 0
            data = self._file.read(count)
        except Exception as error:
            self._error = error
            return b""
        for place, right in self._patches:
            first, stop = max(at, place), min(at + len(data), place + len(right))
            if first < stop:
                data = data[: first - at] + right[first - place : stop - place] + data[stop - at :]
        return data

    def patch(self, place: int, right: bytes) -> None:
        """Let the file read as if the bytes `right` stood at `place`: a length in a header that is wrong."""
        self._patches.append((place, right))

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which is kept within the file."""
        try:
            if whence == os.SEEK_END:
                offset, whence = self.size + offset, os.SEEK_SET
            elif whence == os.SEEK_CUR:
                offset, whence = self._file.tell() + offset, os.SEEK_SET
            return self._file.seek(max(0, min(offset, self.size)), whence)
        except Exception as error:
            self._error = error
            return self._file.tell()

    def tell(self) -> int:
        """The place reading goes on at."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Always: libsndfile asks."""
        return True

    def head(self, count: int, offset: int = 0) -> bytes:
        """`count` bytes from `offset` on, fewer at the end; the place stays. Raises what reading ran into."""
        position = self.tell()
        self.seek(offset)
        data = self.read(count)
        self.check()
        self.seek(position)
        return data

    def part(self, first: int, size: int) -> SourceFile:
        """`size` bytes from `first` on, as a file of its own with the same deadline."""
        part = SourceFile(_Borrowed(self._file, first, size), self._deadline)  # type: ignore[arg-type]
        part.far = self.far
        return part

    def check(self) -> None:
        """Raise what reading ran into: AudioError with a storage code, or timeout."""
        if self._error is not None:
            raise as_audio_error(self._error)
        if self._overdue:
            raise AudioError("timeout", "reading the file took longer than allowed")
