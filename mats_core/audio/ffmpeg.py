"""Containers and codecs that libsndfile does not know, through PyAV (FFmpeg): m4a, webm, mp4, wma, amr, …

Only the file object that was given is ever read: no protocol is allowed, and only formats that hold their own
media are (no HLS, DASH, concat, image sequences or text formats).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av
import numpy as np

from mats_core.audio.file import LEAST_BITS_A_SECOND, AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.signatures import Signature

_FORMATS = (
    "aac,ac3,adp,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,"
    "mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,ogg,oma,rm,sox,tak,truehd,tta,voc,w64,wav,wv,xwma"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
# Bare streams of frames: no index and no length, so times are right only when counted from the start. So they are in
# WAV, whose coded sound FFmpeg seeks by the bytes a second that the header tells.
_BARE = frozenset(
    {"aac", "mp3", "ac3", "eac3", "dts", "dtshd", "truehd", "loas", "amr", "amrnb", "amrwb", "gsm", "wav", "w64"}
)
_PREROLL_S = 0.5  # decoded before the place sought, so that codecs with memory (AAC, Opus, MP3) have settled

av.logging.set_level(av.logging.PANIC)


class _Container:
    """An open container and its decoded frames, in one pass from the start or from a place sought."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        file.seek(0)
        self.container = av.open(file, "r", container_options=dict(_OPTIONS), metadata_errors="replace")
        tracks = self.container.streams.audio
        if not tracks:
            raise AudioError("not_audio", f"is not audio: {self.container.format.long_name} without a sound track")
        self.stream: Any = self.container.streams.best("audio") or tracks[0]
        self.stream.codec_context.thread_count = 1
        for other in self.container.streams:
            if other is not self.stream:
                with contextlib.suppress(AttributeError, ValueError):
                    other.discard = "all"
        self.bare = file.joined or self.container.format.name.split(",")[0] in _BARE
        self.damaged = False
        self.skip_to: int | None = None  # packets before this time are passed over undecoded
        self.frames = self._decoded()

    def _decoded(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                if self.skip_to is not None and packet.pts is not None:
                    if packet.pts < self.skip_to:
                        continue
                    self.skip_to = None
                decoded = packet.decode()
            except (StopIteration, av.error.EOFError):
                self._file.check()
                return
            except av.error.FFmpegError:
                self._file.check()
                self.damaged = True
                if getattr(packets, "gi_frame", packets) is None:  # a generator that raised is over
                    return
                continue
            self._file.check()
            yield from (frame for frame in decoded if frame.samples)

    def seek(self, pts: int) -> None:
        self.container.seek(pts, stream=self.stream, backward=True)
        self.frames = self._decoded()

    def close(self) -> None:
        self.container.close()


class FfmpegSource(Source):
    """One sound track of a container, opened with FFmpeg. The first frame is decoded at once: its rate and
    time are the true ones.

    Raises AudioError: decode_failed, not_audio (no sound track), refused (a format that names other media).
    """

    reader = "ffmpeg"

    def __init__(self, file: SourceFile, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        self._opened = self._open()
        frame = next(self._opened.frames, None)
        if frame is None:
            self._opened.close()
            raise AudioError("decode_failed", "no frame of it can be decoded")
        self._first: Any = frame
        self._first_pts = int(frame.pts or 0)
        self._base = self._opened.stream.time_base
        self.sample_rate = int(frame.sample_rate)
        self.channels = _to_float(frame).shape[1]
        self._damaged = False
        self._end: int | None = None

    def _open(self) -> _Container:
        try:
            return _Container(self._file)
        except av.error.FFmpegError as error:
            self._file.check()
            if "whitelist" in str(error).lower():
                raise AudioError("refused", "names other media, which are never followed") from None
            raise AudioError("decode_failed", (error.strerror or type(error).__name__).strip()) from None
        except (ValueError, OverflowError, UnicodeError) as error:
            raise AudioError("decode_failed", str(error)) from None

    def close(self) -> None:
        self._opened.close()

    @property
    def broken(self) -> bool:  # type: ignore[override]
        return self._damaged or self._opened.damaged

    def info(self) -> AudioInfo:
        stream, container = self._opened.stream, self._opened.container
        first = container.format.name.split(",")[0]
        seconds: float | None = None
        if stream.duration is not None and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        if self._signature.name == "Opus" and seconds is not None:
            # the length in the last page counts the pre-skip, which is not heard (RFC 7845, 4.2)
            seconds -= int.from_bytes(self._file.head(40)[38:40], "little") / 48000
        if seconds is not None and (seconds <= 0 or self._file.size * 8 / seconds < LEAST_BITS_A_SECOND):
            seconds = None
        known = seconds is not None and not self._opened.bare
        names = {"Opus": "opus", "WebM": "webm", "Matroska/WebM": "matroska"}
        kind = names.get(self._signature.name) or {"mov": "mp4"}.get(first, first)
        return AudioInfo(kind, self.sample_rate, self.channels, seconds, "header" if known else "unknown")

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        position, frames = self._start(first)
        held: Block | None = None  # the last frame may hold padding, which only shows when it is the last
        rate = self.sample_rate
        for frame in frames:
            block = _to_float(frame)
            start, position = position, position + len(block)
            if position <= first:
                continue
            if held is not None:
                yield held, rate
            held = block[max(0, first - start) : None if stop is None else max(0, stop - start)]
            rate = frame.sample_rate
            if stop is not None and position >= stop:
                yield held, rate
                return
        self._file.check()
        self._end = position
        if held is not None:
            padding = position - (self._frames_declared() or position)
            yield held[: len(held) - padding] if 0 < padding < len(held) else held, rate

    def _frames_declared(self) -> int | None:
        """Length in frames, where the track itself tells it in a time base as fine as its samples."""
        stream = self._opened.stream
        if self._opened.bare or stream.duration is None or not self._base or self._base * self.sample_rate > 1:
            return None
        return int(stream.duration * self._base * self.sample_rate)

    def _start(self, first: int) -> tuple[int, Iterator[Any]]:
        """Frames from before `first` on, and the source frame they start at: through the index where there
        is one, by passing over packets in bare streams, and from the beginning where neither lands before
        `first`."""
        target = max(0, first - int(_PREROLL_S * self.sample_rate))
        from_start = chain((self._first,), self._opened.frames)
        if target == 0 or not self._base or self._file.joined:
            return 0, from_start  # note: each of joined streams begins its times anew
        pts = self._first_pts + int(target / self.sample_rate / self._base)
        if self._opened.bare:
            # note: their frames are counted, since a seek would guess the place from the bit rate
            self._opened.skip_to = pts
        else:
            try:
                self._opened.seek(pts)
            except av.error.FFmpegError:
                self._reopen()
                self._opened.skip_to = pts
        frame = next(self._opened.frames, None)
        self._file.check()
        if frame is None:
            return first, iter(())
        if frame.pts is not None:
            position = self._position(frame)
            if position <= first:
                return position, chain((frame,), self._opened.frames)
        self._reopen()
        return 0, self._opened.frames

    def _position(self, frame: Any) -> int:
        """Source frame a decoded frame starts at. Matroska rounds times to 1 ms: where all frames have one
        length, the place is the multiple of it that the rounded time means."""
        position = round(float((frame.pts - self._first_pts) * self._base) * self.sample_rate)
        lead, length = self._first.samples, frame.samples
        snapped = lead + round((position - lead) / length) * length
        return snapped if abs(snapped - position) <= 2 * self._base * self.sample_rate else position

    def _reopen(self) -> None:
        self._damaged = self.broken
        self._opened.close()
        self._opened = self._open()

    def ended_early(self) -> bool:
        if self._end is None:
            return False
        if self._signature.name in ("Opus", "Ogg"):
            return self._file.cut
        info = self.info()
        if info.duration_source != "header" or info.duration_s is None:
            return False
        return self._end / self.sample_rate < info.duration_s - 0.5


def count_seconds(file: SourceFile) -> float | None:
    """How long a file lasts by its packets, read from first to last but not decoded (joined streams are: their packets
    do not tell); None where it cannot tell.
    Raises AudioError timeout where the reading takes longer than the file may."""
    try:
        opened = _Container(file)
    except (av.error.FFmpegError, AudioError, ValueError, OverflowError, UnicodeError):
        file.check()
        return None
    try:
        if file.joined:
            return sum(frame.samples / frame.sample_rate for frame in opened.frames) or None
        base, first, last, total = opened.stream.time_base, None, 0, 0
        try:
            for packet in opened.container.demux(opened.stream):
                total += packet.duration or 0
                if packet.pts is not None:
                    first = packet.pts if first is None else first
                    last = max(last, packet.pts + (packet.duration or 0))
        except av.error.FFmpegError:
            pass  # damage: what was counted before it
        file.check()
        ticks = total if opened.bare or first is None else last - first
        return float(ticks * base) if base and ticks > 0 else None
    finally:
        opened.close()


def _to_float(frame: Any) -> Block:
    """A frame's samples as float32 [T, C] in -1 … 1, whatever its sample format."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    return samples.astype(np.float32)
