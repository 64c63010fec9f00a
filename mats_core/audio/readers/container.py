"""An open container (PyAV, FFmpeg) and the pieces of its sound track, with damage between them passed over.

Only the file that was given is ever read: no protocol is allowed, and only formats that hold their own media are.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import av

from mats_core.audio.file import AudioError, Block, SourceFile, to_float
from mats_core.audio.signatures import FFMPEG_FORMATS

_OPTIONS = {"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "none"}
_MOST_BETWEEN = 200  # bytes between two packets
_PLACED = frozenset({"asf", "flv", "nut", "wtv"})  # whose packets tell where they stand, as those of Matroska do
_CHECKED = frozenset({"ac3", "eac3", "flac", "tta", "wavpack"})  # codecs with a checksum in every frame
_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT: streams that are cut and joined, with time stamps that jump
NO_DECODER = "there is no decoder"
# What PyAV ends with where a damaged file leaves None in the place of something.
NO_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, NotImplementedError)

av.logging.set_level(av.logging.PANIC)

Unit: TypeAlias = tuple[int | None, Block | None, int, Any]
"""A piece of a track: its time stamp, its samples (None where it was not decoded), their rate, and the packet that
could not be decoded, or not without damage (None for a frame that is whole)."""


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
        self.kind = self.container.format.name.split(",")[0]
        self.joined = bool(self.container.format.flags & _TS_DISCONT)
        self.base: Fraction = self.stream.time_base or Fraction(1, 1000)
        others = [each for each in self.container.streams if each is not self.stream]
        self.starts = [_start(each) for each in others if each.type in ("audio", "video")]  # seconds, None unknown
        # note: damage shows as bytes between the packets, whatever their track
        self._shows_holes = self.kind == "matroska" or (self.kind in _PLACED and not others)
        self._demuxed: list[Any] = [self.stream] if self.kind != "matroska" else [self.stream, *others]
        for other in others if self.kind != "matroska" else ():
            with contextlib.suppress(AttributeError, ValueError):
                other.discard = "all"
        self.skip_to: int | None = None  # packets before this time are passed over undecoded
        self.tells_durations = True
        self._packets = self._bytes = 0  # read so far
        self._last: int | None = None  # time of the packet before
        self._swallows = False  # whether the packet before holds others
        self._usual = 0  # samples of a frame, at most
        self._step = 1  # from one packet's time to the next one's
        self.holes: list[int] = []  # times of packets that bytes were passed over in front of, where that can be told
        self.began_later = False  # whether packets of a track that began on the way were passed over
        self.place: Callable[[Any], float | None] | None = None  # seconds where a packet begins, if it tells itself
        # note: a frame whose checksum is wrong is heard as it comes; a stricter decoder tells (Ogg has its own)
        self._strict: Any = None
        if (codec := self.stream.codec_context.name) in _CHECKED and self.kind != "ogg":
            self._strict = av.CodecContext.create(codec, "r")
            self._strict.extradata = self.stream.codec_context.extradata
            self._strict.options = {"err_detect": "crccheck+explode"}
        self.units = self.decoded(self.packets())

    def packets(self) -> Iterator[Any]:
        """The packets of the track; damage between them is passed over. The last is empty: it drains the decoder."""
        failed_at, failures, place, behind, hole = -1, 0, -1, 0, False
        self._last = None
        while True:
            try:
                for packet in self.container.demux(self._demuxed):
                    self._file.check()
                    if self._shows_holes and packet.size and packet.pos is not None:
                        if 0 < behind < packet.pos - _MOST_BETWEEN:
                            hole = hole or self._misses(packet.pos - behind, packet.pts)
                        # note: packets that share a block have one place
                        begin = behind if packet.pos == place else packet.pos
                        behind, place = begin + self._plausible(packet), packet.pos
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

    def _plausible(self, packet: Any) -> int:
        """The bytes of a packet; fewer where it is so much larger than those before that it has swallowed some."""
        size: int = packet.size
        if self.kind != "matroska" and self._packets:
            size = min(size, 4 * self._bytes // self._packets)
        self._swallows = size < packet.size
        self._packets, self._bytes = self._packets + 1, self._bytes + size
        if packet.pts is not None:
            step = packet.duration or (packet.pts - self._last if self._last is not None else 0)
            self._last, self._step = packet.pts, step if step > 0 and not packet.is_corrupt else self._step
        return size

    def _misses(self, skipped: int, pts: int | None) -> bool:
        """Whether bytes between two packets are as many as the sound that is missing between them can have taken, and
        not the padding of a pause."""
        if self._swallows or self._last is None or pts is None or self.kind == "matroska":
            return True
        missing = (pts - self._last) / self._step - 1
        return 2 * skipped >= missing * self._bytes / max(1, self._packets)

    def decoded(self, packets: Iterable[Any]) -> Iterator[Unit]:
        """The units that packets decode to."""
        for packet in packets:
            if self.skip_to is not None and packet.pts is not None:
                if packet.pts + (packet.duration or 0) <= self.skip_to:
                    continue
                self.skip_to = None
            whole = self._whole_frames(packet)
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
            coded = not self.stream.codec_context.name.startswith(("pcm", "dfpwm"))  # else any bytes are samples
            # note: zeros at the end of a packet of Speex are frames as well, of which one packet's have one length
            speech = self.stream.codec_context.name.endswith("speex")
            swallows = (self._swallows or speech) and self._usual > 0 and coded
            for number, frame in enumerate(frames):
                if swallows and frame.samples > 2 * self._usual:  # what it swallowed is no sound
                    yield frame.pts, None, 0, packet
                    break
                self._usual = max(self._usual, frame.samples)
                if frame.samples and (not number or number * frame.samples < most * frame.sample_rate):
                    try:
                        yield frame.pts, to_float(frame), int(frame.sample_rate), None if number < whole else packet
                    except NO_ERRORS:  # what a damaged frame does not tell is None in PyAV
                        yield frame.pts, None, 0, packet

    def _whole_frames(self, packet: Any) -> float:
        """How many frames of a packet are whole: none where the container misses a part of it, and by their checksums,
        where they have any."""
        if packet.is_corrupt and self.kind != "adx":  # whose packets are cut by their bytes, the last one shorter
            return 0
        if self._strict is None or not packet.size:
            return math.inf
        try:
            return len(self._strict.decode(av.Packet(bytes(packet))))
        except (av.error.FFmpegError, *NO_ERRORS):
            return 0

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


class AviIndex:
    """Where the packets of an AVI's track begin, in seconds, by its index: AVI has no time stamps, and what damage
    takes between two packets shows nowhere else. `seconds`: how long the index says that the track is, which headers
    tell wrongly of ADPCM; None before a packet was placed."""

    def __init__(self, stream: Any) -> None:
        self._entries, self._base, self._following = stream.index_entries, stream.time_base, 0
        self._scale: Fraction | None = None  # of the index's times
        self.seconds: float | None = None

    @staticmethod
    def of(file: SourceFile, stream: Any) -> AviIndex | None:
        """The index of a track; None where there is none, or it ends elsewhere than the track: bytes were put in or
        taken out in front."""
        if len(entries := stream.index_entries) < 2:
            return None
        first, last = entries[0], entries[len(entries) - 1]
        kind, behind = file.head(4, offset=first.pos), last.pos + 8 + last.size + last.size % 2
        ends = file.head(4, offset=last.pos) == kind != file.head(4, offset=behind)
        return AviIndex(stream) if ends else None

    def __call__(self, packet: Any) -> float | None:
        """Where a packet begins, None where the index does not know it."""
        entries, chunk = self._entries, packet.pos - 8  # where its header stands
        if self._scale is None:
            counts_bytes = entries[1].timestamp - entries[0].timestamp == entries[0].size  # else packets
            self._scale = Fraction(packet.duration or 1, entries[0].size) if counts_bytes else Fraction(1)
            before, last = entries[len(entries) - 2], entries[len(entries) - 1]
            end = last.timestamp + (last.size if counts_bytes else last.timestamp - before.timestamp)
            self.seconds = float(end * self._scale * self._base)
        if self._following >= len(entries) or entries[self._following].pos != chunk:
            at = bisect_left(entries, chunk, key=lambda entry: entry.pos)
            if at >= len(entries) or entries[at].pos != chunk:
                return None
            self._following = at
        self._following += 1
        return float(entries[self._following - 1].timestamp * self._scale * self._base)


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
