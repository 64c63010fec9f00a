"""What every reader needs: a file that C decoders may read, an opened source, what its header says, AudioError."""

from __future__ import annotations

import io
import os
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mats_core.errors import CodedError
from mats_core.storage import error_from

Block: TypeAlias = npt.NDArray[np.float32]
Reader: TypeAlias = Literal["libsndfile", "ffmpeg", "mp3", "flac"]


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
    an estimate. `size_bytes`: of the file, 0 where it was not asked."""

    format: str
    sample_rate: int
    channels: int
    duration_s: float | None
    duration_source: Literal["header", "decoded", "unknown"]
    size_bytes: int = field(default=0, compare=False)


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
        self._head = b""  # what is read before the bytes of the file, and
        self._skipped = 0  # how many of these are left out before the first that is read
        self._at = 0
        self.joined = False  # several streams one behind the other: places in it are found by counting alone
        self.links: list[tuple[int, int]] = []  # where each of several files one behind the other stands
        self.cut = False  # it ends before what its header declares
        self.missing = 0.0  # and how much of its sound that leaves out, as a share of what is there, as far as known
        self.tagged = False  # unknown to `sniff`, behind an ID3 tag that is left out
        self.format = ""  # its format, where it is read as another; else empty
        self.frames: int | None = None  # its length, where frames of it were looked at
        try:
            self.size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except Exception as error:
            raise as_audio_error(error) from None

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes; none after an error or the deadline."""
        self._overdue = self._overdue or (self._error is None and time.monotonic() > self._deadline)
        if self._error is not None or self._overdue:
            return b""
        stop = self.size if count is None or count < 0 else min(self.size, self._at + count)
        data = self._head[self._at : stop]
        try:
            if (begin := self._at + len(data)) < stop:
                self._file.seek(self._skipped + begin - len(self._head))
                data += self._file.read(stop - begin)
        except Exception as error:
            self._error = error
            return b""
        self._at += len(data)
        return data

    def present(self, head: bytes, start: int, stop: int) -> None:
        """Let the file read as `head` and its bytes [start, stop) alone: what is wrong in a header, or is no sound, is
        left out so. What was presented before must lie in front of `start`."""
        self._skipped += start - len(self._head)
        self._head, self._at = head, 0
        self.size = len(head) + stop - start

    def is_followed(self, place: int, alike: bool) -> None:
        """Mark it as `cut`: at `place`, behind its sound, another file begins that is not heard; where that is `alike`,
        as much of it is `missing` as its bytes tell."""
        self.cut, self.missing = True, (self.size - place) / max(1, place) if alike else 0.0

    def part(self, start: int, stop: int) -> SourceFile:
        """The bytes [start, stop) as a file of their own, with a place of its own."""
        part = SourceFile(self._file, self._deadline)
        part._skipped, part._head, part.size, part.far = self._skipped, self._head, self.size, self.far
        part.present(b"", start, stop)
        return part

    def over(self, file: BinaryIO, deadline: float) -> SourceFile:
        """The same file through another handle, presented in the same way."""
        again = SourceFile(file, deadline)
        again._skipped, again._head, again.size = self._skipped, self._head, self.size
        again.joined, again.links, again.cut = self.joined, self.links, self.cut
        again.missing, again.tagged = self.missing, self.tagged
        again.format, again.frames = self.format, self.frames
        return again

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which is kept within the file."""
        offset += {os.SEEK_END: self.size, os.SEEK_CUR: self._at}.get(whence, 0)
        self._at = max(0, min(offset, self.size))
        return self._at

    def tell(self) -> int:
        """The place reading goes on at."""
        return self._at

    def seekable(self) -> bool:
        """Always: libsndfile asks."""
        return True

    def head(self, count: int, offset: int = 0) -> bytes:
        """`count` bytes from `offset` on, fewer at the end; the place stays. Raises what reading ran into."""
        position = self._at
        self.seek(offset)
        data = self.read(count)
        self.check()
        self._at = position
        return data

    def check(self) -> None:
        """Raise what reading ran into: AudioError with a storage code, or timeout."""
        if self._error is not None:
            raise as_audio_error(self._error)
        if self._overdue:
            raise AudioError("timeout", "reading the file took longer than allowed")


def to_float(frame: Any) -> Block:
    """A frame's samples as float32 [T, C] in -1 … 1, whatever its sample format."""
    if "s64" in frame.format.name:  # which PyAV does not know
        planes = [np.frombuffer(plane, np.int64) for plane in frame.planes]
        samples = np.stack(planes)[:, : frame.samples * len(frame.layout.channels) // len(planes)]
    else:
        samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    return samples.astype(np.float32, copy=False)
