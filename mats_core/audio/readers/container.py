"""An open container (PyAV, FFmpeg) and the pieces of its sound track, with damage between them passed over.

Only the file that was given is ever read: no protocol is allowed, and only formats that hold their own media are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import av

from mats_core.audio.file import AudioError, Block, SourceFile, to_float
from mats_core.audio.signatures import FFMPEG_FORMATS

_OPTIONS = {"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "none"}
_MOST_BETWEEN = 200  # bytes between two packets of Matroska
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT: streams that are cut and joined, with time stamps that jump
NO_DECODER = "there is no decoder"
# What PyAV ends with where a damaged file leaves None in the place of something.
NO_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, NotImplementedError)

av.logging.set_level(av.logging.PANIC)

Unit: TypeAlias = tuple[int | None, Block | None, int, Any]
"""A piece of a track: its time stamp, its samples (None where it was not decoded), their rate, and the packet that
could not be decoded (None for a frame)."""


class Container:
    """An open container and its units, in one pass from the start or from a place sought."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        file.seek(0)
        self.container = av.open(file, "r", container_options=dict(_OPTIONS), metadata_errors="replace")
        tracks = self.container.streams.audio
        if not tracks:
            raise AudioError("not_audio", f"is not audio: {self.container.format.long_name} without a sound track")
        best = self.container.streams.best("audio") or tracks[0]
        decodable = [each for each in (best, *tracks) if each.codec_context is not None]
        if not decodable:
            self.container.close()
            raise AudioError("decode_failed", _without_decoder(file))
        self.stream: Any = decodable[0]
        self.stream.codec_context.thread_count = 1
        if self.stream.codec_context.name == "flac":  # else a frame with a wrong checksum is heard as it comes
            self.stream.codec_context.options = {"err_detect": "crccheck+explode"}
        self.kind = self.container.format.name.split(",")[0]
        self.joined = bool(self.container.format.flags & _TS_DISCONT)
        self.base: Fraction = self.stream.time_base or Fraction(1, 1000)
        others = [each for each in self.container.streams if each is not self.stream]
        self.starts = [_start(each) for each in others if each.type in ("audio", "video")]  # seconds, None unknown
        # note: in Matroska damage shows as bytes between the packets, whatever their track
        self._demuxed: list[Any] = [self.stream] if self.kind != "matroska" else [self.stream, *others]
        for other in others if self.kind != "matroska" else ():
            with contextlib.suppress(AttributeError, ValueError):
                other.discard = "all"
        self.skip_to: int | None = None  # packets before this time are passed over undecoded
        self.tells_durations = True
        self.holes: list[int] = []  # times of packets that bytes were passed over in front of, where that can be told
        self.began_later = False  # whether packets of a track that began on the way were passed over
        self.place: Callable[[Any], float | None] | None = None  # seconds where a packet begins, if it tells itself
        self.units = self.decoded(self.packets())

    def packets(self) -> Iterator[Any]:
        """The packets of the track; damage between them is passed over. The last is empty: it drains the decoder."""
        failed_at, failures, place, behind, hole = (
            -1,
            0,
            -1,
            0,
            False,
        )  # note: packets that share a block have one place
        while True:
            try:
                for packet in self.container.demux(self._demuxed):
                    self._file.check()
                    if self.kind == "matroska" and packet.size and packet.pos is not None:
                        hole = hole or 0 < behind < packet.pos - _MOST_BETWEEN
                        behind, place = (behind if packet.pos == place else packet.pos) + packet.size, packet.pos
                    if packet.stream_index != self.stream.index:
                        continue
                    if hole and packet.pts is not None:
                        self.holes.append(packet.pts)
                        hole = False
                    if self.place is not None and packet.size:
                        seconds = self.place(packet)
                        packet.pts = None if seconds is None else round(seconds / self.base)
                    self.tells_durations = self.tells_durations and bool(packet.duration or not packet.size)
                    yield packet
                    failures = 0
                self._file.check()
                return
            except (av.error.FFmpegError, IndexError) as error:
                self._file.check()
                # note: an IndexError is a packet of a track that began on the way; a demuxer may fail for ever
                self.began_later = self.began_later or isinstance(error, IndexError)
                failures = failures + 1 if self._file.tell() == failed_at else 0
                failed_at = self._file.tell()
                if failures > (10_000 if isinstance(error, IndexError) else 2):
                    return

    def decoded(self, packets: Iterable[Any]) -> Iterator[Unit]:
        """The units that packets decode to."""
        for packet in packets:
            if self.skip_to is not None and packet.pts is not None:
                if packet.pts + (packet.duration or 0) <= self.skip_to:
                    continue
                self.skip_to = None
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except (av.error.FFmpegError, *NO_ERRORS):
                self._file.check()
                if packet.size:
                    yield packet.pts, None, 0, packet
                continue
            self._file.check()
            # seconds: damage can decode to many frames; FLAC whose headers are damaged are several frames in truth
            most = 1.5 * float((packet.duration or 1 << 62) * self.base) if self.place is None else 1 << 62
            for number, frame in enumerate(frames):
                if frame.samples and (not number or number * frame.samples < most * frame.sample_rate):
                    try:
                        yield frame.pts, to_float(frame), int(frame.sample_rate), None
                    except NO_ERRORS:  # what a damaged frame does not tell is None in PyAV
                        yield frame.pts, None, 0, packet

    def seek(self, pts: int) -> None:
        self.container.seek(pts, stream=self.stream, backward=True)
        self.units = self.decoded(self.packets())

    def close(self) -> None:
        self.container.close()


def _start(stream: Any) -> float | None:
    attached = int(getattr(stream, "disposition", 0) or 0) & 0x0400  # a cover picture
    if attached or stream.start_time is None or not stream.time_base:
        return None
    return float(stream.start_time * stream.time_base)


def _without_decoder(file: SourceFile) -> str:
    """What codec a file is in that FFmpeg has no decoder for, in its own words."""
    file.seek(0)
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as logs, av.open(file, "r", container_options=dict(_OPTIONS)) as container:
            name = container.format.long_name
    finally:
        av.logging.set_level(av.logging.PANIC)
    said = " ".join(text for _, _, text in logs)
    codec = said.partition("(Audio: ")[2].partition(",")[0]  # "atrac9", or "none ([1][0][0][0] / 0x0001)"
    codec = codec.replace("none (", "unknown to FFmpeg (") or "unknown"
    if "/ 0x0001" in codec and "WAV" in name:
        codec = "PCM of a sample size that there is not"
    return f"{NO_DECODER} for its codec, {codec}, in {name}"
