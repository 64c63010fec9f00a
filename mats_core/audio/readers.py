"""Open a file with the reader that can: libsndfile first, PyAV for the rest. Blocks of float32 [T, C] come
out."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile

from mats_core.audio.repair import ogg_has_end, wav_samples
from mats_core.audio.signatures import HEAD_BYTES, Signature, sniff
from mats_core.errors import CodedError
from mats_core.storage import error_from

Block: TypeAlias = npt.NDArray[np.float32]
_BLOCK_FRAMES = 1 << 16
_MOST_MP3_BYTES = 40_000  # a second: 320 kbit/s
_MOST_TRAILER = 8192  # bytes of tags after the sound; more of them only cost a slower reader
LEAST_BITS_A_SECOND = 500  # less than silence costs in any codec: such a header lies about its duration


class AudioError(CodedError):
    """A file that gives no audio. `code` is one of DESIGN.md's error codes, `message` is for people."""


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


class Source(Protocol):
    """An open file. `broken` turns True when decoding met damage; `container` tells PyAV from libsndfile."""

    sample_rate: int
    channels: int
    container: bool

    @property
    def broken(self) -> bool: ...
    @property
    def declared_s(self) -> float | None: ...
    def info(self) -> AudioInfo: ...
    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        """Source frames [first, stop) as (float32 [T, C], their sample rate); stop=None for all."""
        ...

    def ended_early(self) -> bool:
        """Whether the file ends before what its header declares."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Source: ...
    def __exit__(self, *error: object) -> None: ...


class SourceFile:
    """A seekable file for C decoders: an exception must not cross them, so it is kept, looks like the end
    of the file to the decoder, and is raised afterwards by `check`. Without a `name`, so that no decoder
    guesses by it."""

    def __init__(self, file: BinaryIO, deadline: float = float("inf")) -> None:
        self._file = file
        self._deadline = deadline
        self._error: BaseException | None = None
        self._late = False
        self._patches: list[tuple[int, bytes]] = []
        self.joined = False  # several streams behind each other: only counting tells a place in it
        try:
            self.size = file.seek(0, os.SEEK_END)
            file.seek(0)
        except Exception as error:
            raise _as_audio_error(error) from None

    def read(self, count: int = -1) -> bytes:
        if self._error is not None or self._late:
            return b""
        if time.monotonic() > self._deadline:
            self._late = True
            return b""
        try:
            at = self._file.tell() if self._patches else 0
            data = self._file.read(count)
        except Exception as error:
            self._error = error
            return b""
        for place, right in self._patches:
            if at < place + len(right) and place < at + len(data):
                changed = bytearray(data)
                for offset, byte in enumerate(right, place - at):
                    if 0 <= offset < len(changed):
                        changed[offset] = byte
                data = bytes(changed)
        return data

    def patch(self, place: int, right: bytes) -> None:
        """Let the file read as if these bytes stood at `place`: a header's length that is wrong."""
        self._patches.append((place, right))

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
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
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def read_all(self) -> bytes:
        self.seek(0)
        data = self.read()
        self.check()
        return data

    def head(self, count: int, offset: int = 0) -> bytes:
        position = self.tell()
        self.seek(offset)
        data = self.read(count)
        self.check()
        self.seek(position)
        return data

    def check(self) -> None:
        """Raise what reading ran into: AudioError with a storage code, or timeout."""
        if self._error is not None:
            raise _as_audio_error(self._error)
        if self._late:
            raise AudioError("timeout", "reading the file took longer than allowed")


def _as_audio_error(error: BaseException) -> AudioError:
    if isinstance(error, AudioError):
        return error
    coded = error_from(error, "the file")
    return AudioError(coded.code, coded.message)


Reader = Literal["libsndfile", "pyav"]


def readers(file: SourceFile, seeks: bool) -> tuple[Reader, ...]:
    """Who reads a file, the best first.

    libsndfile 1.2.2 takes raw AAC for broken MP3, shifts the first page of Opus by its pre-skip when a read
    is longer than a packet, and lands up to a block away when it seeks into the last page of Ogg Vorbis. Of joined
    streams it knows the first.
    """
    name = sniff(file.head(HEAD_BYTES)).name
    if name in ("AAC", "Opus") or file.joined:
        return ("pyav",)
    return ("pyav", "libsndfile") if name == "Ogg" and seeks else ("libsndfile", "pyav")


def open_source(file: SourceFile, order: tuple[Reader, ...], name: str = "") -> Source:
    """Open with the first reader that can. Raises AudioError when none can, with the reason of the one that
    knows most."""
    signature = sniff(file.head(HEAD_BYTES), name)
    if signature.kind == "playlist":
        raise AudioError("refused", f"is a {signature.name}; it names other media, which are never followed")
    if signature.kind == "other":
        raise AudioError("not_audio", f"is not audio: {_starts_with(signature)}")
    reason = ""
    for reader in order:
        file.seek(0)
        try:
            return _open_with(reader, file, signature)
        except soundfile.LibsndfileError as error:
            file.check()
            if "not recogni" not in error.error_string:
                reason = error.error_string.strip().rstrip(".")
        except (ValueError, TypeError, OverflowError) as error:  # soundfile's own checks of a header
            file.check()
            reason = str(error)
        except AudioError as error:
            file.check()
            if error.code != "decode_failed":
                raise
            reason = reason or error.message
    if signature.name == "WAV" and wav_samples(file, file.head(HEAD_BYTES)) == 0:
        raise AudioError("empty_audio", "is a WAV header without samples")
    if signature.kind == "audio":
        if reason == _NO_SAMPLES:
            raise AudioError("empty_audio", f"is {signature.name} with a header but no samples")
        detail = "" if any(each in reason for each in _SAYS_NOTHING) else f" ({reason})"
        raise AudioError("decode_failed", f"starts like {signature.name}, but is damaged or cut off{detail}")
    raise AudioError("not_audio", f"is not audio: {_starts_with(signature)}")


_NO_SAMPLES = "no samples"
# What decoders answer when they are lost; to a person it would be noise, or wrong.
_SAYS_NOTHING = (
    "Invalid data",
    "End of file",
    "Internal error",
    "unknown error",
    "malformed",
    "does not exist",
    "no frame",
    "Internal psf_fseek",
)


def _open_with(reader: Reader, file: SourceFile, signature: Signature) -> Source:
    if reader == "pyav":
        from mats_core.audio.ffmpeg import ContainerSource  # imports this module

        return ContainerSource(file, signature)
    source = SoundFileSource(file, signature)
    if source.frames <= 0:
        source.close()
        raise AudioError("decode_failed", _NO_SAMPLES)
    if source.is_longer_than_declared():
        source.close()
        raise AudioError("decode_failed", "its header tells less than there is")  # PyAV reads on to the end
    return source


def _starts_with(signature: Signature) -> str:
    if signature.name in ("text", "HTML", "zero bytes") or signature.kind == "unknown":
        return f"starts with {signature.name}"
    return f"it is {signature.name}"


class _Sound(soundfile.SoundFile):
    """soundfile seeks to where it already is after every read, which costs time and, in MP3, up to 2000
    wrong samples (a decoder that has been sought starts without the bits of the frames before). So it is
    told that it cannot."""

    def seekable(self) -> bool:
        return False


class SoundFileSource:
    """libsndfile: WAV, FLAC, AIFF, Ogg, MP3, … with exact seeks."""

    container = False

    def __init__(self, file: SourceFile, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        self._sound = _Sound(file, "r")
        file.check()
        self.sample_rate = int(self._sound.samplerate)
        self.channels = int(self._sound.channels)
        self.frames = int(self._sound.frames)
        self.broken = False
        self._end: int | None = None  # frame where reading found the end

    def __enter__(self) -> SoundFileSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._sound.close()

    @property
    def declared_s(self) -> float | None:
        return self.info().duration_s

    def info(self) -> AudioInfo:
        kind = self._sound.format.lower()
        frames = self.frames
        seconds: float | None = frames / max(self.sample_rate, 1)
        source: Literal["header", "unknown"] = "header"
        if frames <= 0 or (kind == "mp3" and not self._has_xing_header()):
            source = "unknown"  # an estimate from the first frames' bit rate
        if seconds and self._file.size * 8 / seconds < LEAST_BITS_A_SECOND:
            seconds, source = None, "unknown"
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
        """Go to a frame; False where the file does not reach it."""
        if frame == 0:
            return True
        if frame >= self.frames:
            self._end = self.frames
            return False
        try:
            self._sound.seek(frame)
        except (soundfile.LibsndfileError, RuntimeError):
            self._file.check()
            self.broken = True  # cut before this place, or damaged
            return False
        return True

    def _rescue(self, first: int, stop: int) -> Iterator[tuple[Block, int]]:
        """Frames before the damage, which a failed read of a whole block threw away."""
        try:
            self._file.seek(0)
            with _Sound(self._file, "r") as again:
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
        kind = self._signature.name
        if kind == "WAV":
            declared = wav_samples(self._file, self._file.head(HEAD_BYTES))
            return declared is None
        if kind == "AIFF":
            return "calculated from length of" in self._sound.extra_info
        if kind == "Ogg":
            return not ogg_has_end(self._file)
        if kind == "FLAC" or (kind == "MP3" and self._has_xing_header()):
            return self._end < self.frames - self.sample_rate // 10
        return False

    def is_longer_than_declared(self) -> bool:
        """Whether an MP3 has more bytes than its Xing header knows of (joined files, a stale header): libsndfile
        would stop where the header does."""
        if self._signature.name != "MP3":
            return False
        head = self._file.head(HEAD_BYTES, offset=self._tag_bytes())
        place = max(head[:400].find(b"Xing"), head[:400].find(b"Info"))
        if place < 0 or len(head) < place + 16:
            return False
        flags, first, second = struct.unpack(">III", head[place + 4 : place + 16])
        known = (second if flags & 1 else first) if flags & 2 else _MOST_MP3_BYTES * self.frames // self.sample_rate
        return self._file.size - self._tag_bytes() > known * 1.01 + _MOST_TRAILER

    def _tag_bytes(self) -> int:
        """Length of the ID3 tag before the sound; it may hold a picture."""
        head = self._file.head(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return 0
        return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))

    def _has_xing_header(self) -> bool:
        head = self._file.head(HEAD_BYTES, offset=self._tag_bytes())
        return any(mark in head[:400] for mark in (b"Xing", b"Info", b"VBRI"))
