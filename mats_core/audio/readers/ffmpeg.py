"""Containers and codecs that libsndfile does not know, through PyAV (FFmpeg): m4a, webm, mp4, wma, amr, …

A track is heard by its time stamps: where they leave a gap there is silence, where they overlap nothing is heard twice,
and what cannot be decoded is silence of its length. Time 0 is where the file begins, with sound or with pictures.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import av
import numpy as np

from mats_core.audio.file import AudioError, AudioInfo, Block, Source, SourceFile
from mats_core.audio.readers.container import NO_ERRORS, AviIndex, Container, Unit
from mats_core.audio.readers.flac import frame_places
from mats_core.audio.signatures import NAMING_FORMATS, Signature

# Bare streams of frames: no index and no length, so times are right only when counted from the start.
_BARE = re.compile("aac|mp3|e?ac3|dts(hd)?|truehd|mlp|loas|amr(nb|wb)?|gsm|swf")
# Their times come from a rate of bytes in the header, which lies for G.722 and ADPCM: decoded samples are counted.
_BY_BYTES = frozenset({"wav", "w64", "aiff", "au", "voc", "sox", "ircam", "nistsphere", "iff"})
_PARSED = frozenset({"asf", "avi", "wtv"})  # whose FLAC FFmpeg cuts into frames itself, and then times late
_UNINDEXED = frozenset({"mpeg", "mpegts"})  # a seek misses: up to this size packets are passed over from the start
_PASSED_OVER_BYTES = 256 << 20
_DOUBTFUL = frozenset({"avi", "flv"})  # behind damage their index misses too: so do local ones
_PREROLL_S = 0.5  # decoded before the place sought, so that codecs with memory (AAC, Opus, MP3) have settled
# Half a second is not enough for these, whose packets build on all before.
_REMEMBERING = re.compile("(lib)?speex|g72[236].*|real_144|dfpwm|adpcm_(?!ms|swf|adx|ima_wav|ima_qt).*")
_JITTER_S = 0.05  # time stamps of live recordings tremble by as much; it is neither filled nor cut
_MOST_BACK_S = 1.0  # time stamps that go further back begin anew
_LATE_S = 10.0  # no time stamp further behind the declared end is believed; in streams that are cut and joined, no gap
_LATEST_S = 3600.0  # sound does not start later
_PAUSES_S, _PAUSES = 5400.0, 20.0  # most silence of gaps: so much, and so many times what was heard before
_FEWEST_BITS = 1000  # a second, of a file longer than that whose header tells its length truly
_TAILS_S = (2.0, 20.0, 120.0)  # how far before its declared end the last sound of a track is sought
_SILENCE = 1 << 16  # frames of a block of silence
_NO_UNIT: Unit = (None, None, 0, None)
_HOLE = object()  # in the place of packets that damage took


class FfmpegSource(Source):
    """One sound track of a container, opened with FFmpeg. The first frame is decoded at once: its rate and
    time are the true ones.

    Raises AudioError: decode_failed, not_audio (no sound track), refused (a format that names other media).
    """

    reader = "ffmpeg"
    passes_damage = True

    def __init__(self, file: SourceFile, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        self.broken = False
        self._opened = self._open()
        opened = self._opened
        self._first: list[Unit] = []
        for unit in opened.units:
            self._first.append(unit)
            if unit[1] is not None:
                break
        if not self._first or self._first[-1][1] is None:
            opened.close()
            raise AudioError("decode_failed", "no frame of it can be decoded")
        indexed = opened.place.seconds if isinstance(opened.place, AviIndex) else None
        declared = indexed or float((opened.stream.duration or 0) * opened.base)
        lies = declared > _PAUSES_S and file.size * 8 < declared * _FEWEST_BITS
        self._by_count = file.joined or opened.kind in _BY_BYTES or lies
        self._bare = file.joined or bool(_BARE.fullmatch(opened.kind))  # note: AAC joined begins its times anew each
        unsought = opened.kind in (_UNINDEXED if file.far else _UNINDEXED | _DOUBTFUL)
        self._from_start = self._bare or (unsought and file.size <= _PASSED_OVER_BYTES)
        self._decodes_all = self._by_count or bool(_REMEMBERING.fullmatch(opened.stream.codec_context.name))
        block = self._first[-1][1]
        self.sample_rate, self.channels = self._first[-1][2], block.shape[1]
        self._shift = 0  # frames that time stamps are late since they jumped
        self._lengths = len(block)  # frames of the first decoded block: what a lost packet is taken to have had
        begin = next((float(pts * opened.base) for pts, *_ in self._first if pts is not None), 0.0)
        starts = [start for start in opened.starts if start is not None and begin - _LATEST_S < start < begin]
        self._zero = begin if self._bare or self._by_count else min([begin, *starts])

    def _open(self) -> Container:
        try:
            opened = Container(self._file)
            if opened.kind in _PARSED:
                opened.place = frame_places(opened.stream.codec_context)
            if opened.kind == "avi":
                opened.place = opened.place or AviIndex.of(self._file, opened.stream)
            return opened
        except av.error.FFmpegError as error:
            self._file.check()
            _, kind, said = getattr(error, "log", None) or (0, "", "")
            if "not on whitelist" in said and kind in NAMING_FORMATS:
                raise AudioError("refused", "names other media, which are never followed") from None
            if "not on whitelist" in said:
                raise AudioError("decode_failed", f"its format, {kind}, is not read") from None
            raise AudioError("decode_failed", (error.strerror or type(error).__name__).strip()) from None
        except NO_ERRORS:
            raise AudioError("decode_failed", "its header is damaged") from None

    def close(self) -> None:
        self._opened.close()

    def info(self) -> AudioInfo:
        stream, container, seconds = self._opened.stream, self._opened.container, None
        if isinstance(self._opened.place, AviIndex) and self._opened.place.seconds is not None:
            seconds = self._opened.place.seconds
        elif self._opened.kind == "avi" and self._opened.place is None:
            seconds = None  # its header tells ADPCM and GSM too long
        elif stream.duration is not None and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
            if not self._bare and not self._by_count and stream.start_time is not None:
                seconds += max(0.0, float(stream.start_time * stream.time_base) - self._zero)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        if self._signature.name == "Opus" and seconds is not None:
            # the length in the last page counts the pre-skip, which is not heard (RFC 7845, 4.2)
            seconds -= int.from_bytes(self._file.head(40)[38:40], "little") / 48000
        seconds = seconds if seconds and seconds > 0 else None
        names = {"Opus": "opus", "WebM": "webm", "Matroska/WebM": "matroska"}
        kind = names.get(self._signature.name) or {"mov": "mp4"}.get(self._opened.kind, self._opened.kind)
        known = seconds is not None and not self._bare and not self._by_count
        return AudioInfo(kind, self.sample_rate, self.channels, seconds, "header" if known else "unknown")

    def checked(self, declared: AudioInfo) -> AudioInfo | None:
        """`declared` where the last packets of the track end there, or with the length that they tell; None where only
        counting all of them can tell. Ends this source's reading."""
        seconds = declared.duration_s
        if seconds is None or declared.duration_source != "header" or self._from_start:
            return None
        for before in _TAILS_S:
            if (last := self._last_behind(seconds - before)) is None:
                continue
            begin, end = last
            # note: of the last packet a part may be padding; of NUT only its beginning is declared
            if begin - _TOLERATED_S <= seconds <= end + _TOLERATED_S and (self._opened.kind != "nut" or end <= seconds):
                return declared
            return replace(declared, duration_s=end, duration_source="decoded") if end > seconds - before else None
        return None

    def _last_behind(self, seconds: float) -> tuple[float, float] | None:
        """Where the last packet that can be reached from `seconds` through the index begins and ends, if one can."""
        try:
            self._opened.seek(int((max(0.0, seconds) + self._zero) / self._opened.base))
        except av.error.FFmpegError:
            self._file.check()
            return None
        times = ((each.pts, each.duration) for each in self._opened.packets() if each.pts is not None)
        if not (packets := deque(times, maxlen=2)):
            return None
        begin, length = packets[-1]
        if not length or length >= 1 << 31:  # of Vorbis, what is cut can be more than there is: below 0, without a sign
            length = max(0, begin - packets[-2][0]) if len(packets) > 1 and not length else 0
        first, last = (float(at * self._opened.base) - self._zero for at in (begin, begin + length))
        return first, last

    def counted(self) -> AudioInfo | None:
        """The length that the packets tell, from first to last (decoded, where their headers do not tell)."""
        if not self._by_count and self._opened.tells_durations:
            self._reopen()
            end = self._pass_over(1 << 62)[0]
        else:
            end = 0
            for at, block, rate, _ in self._placed(chain(self._first, self._opened.units), 0):
                end = at + round(len(block) * self.sample_rate / rate)
        declared, seconds = self.info(), end / self.sample_rate
        if declared.duration_source == "header" and abs((declared.duration_s or 0.0) - seconds) <= _TOLERATED_S:
            return declared
        return replace(declared, duration_s=seconds, duration_source="decoded") if end > 0 else None

    def blocks(self, first: int, stop: int | None) -> Iterator[tuple[Block, int]]:
        position, units = self._start(first)
        # note: the last frame may hold padding, which only shows when it is the last; behind it nothing is lost
        held: list[tuple[Block, int]] = []
        for at, block, rate, packet in self._placed(units, position):
            lost = packet is _HOLE or (packet is not None and not self._is_silence(packet))
            scale = rate / self.sample_rate
            position = at + round(len(block) / scale)
            if position <= first:
                continue
            if not lost or block.any():  # what a checksum covers may be sound all the same
                yield from held
                held = []
            begin = max(0, round((first - at) * scale))
            end = len(block) if stop is None else max(0, min(len(block), round((stop - at) * scale)))
            if lost:
                self.broken = True
                self.lost_s += max(0, end - begin) / rate
            held.append((block[begin:end], rate))
            if stop is not None and position >= stop:
                yield from held
                return
        self._file.check()
        self._end = position - sum(len(block) for block, _ in held[1:])
        if held:
            block, rate = held[0]
            padding = position - (self._frames_declared() or position)
            yield (block[: len(block) - padding] if 0 < padding < len(block) else block), rate

    def _placed(self, units: Iterable[Unit], position: int) -> Iterator[tuple[int, Block, int, Any]]:
        """Units one behind the other from `position` on, as (source frame where it begins, float32 [T, C], its rate,
        the packet that is not decoded or None): silence in gaps of the time stamps, and overlaps cut."""
        rate, zero, by_count = self.sample_rate, self._zero * self.sample_rate, self._by_count
        tick = float(self._opened.base * rate)  # frames
        jitter = max(_JITTER_S * rate, 2 * tick)
        declared = self.info()
        end = (declared.duration_s or 0.0) * rate if declared.duration_source == "header" else math.inf
        last, left, damaged, before = self._lengths, _PAUSES_S * rate, False, None
        for (pts, block, its_rate, packet), (following, *_) in pairwise(chain(units, (_NO_UNIT,))):
            if block is not None:
                scale, length = its_rate / rate, round(len(block) * rate / its_rate)
                last = length
            else:
                scale, its_rate = 1.0, rate
                length = round((packet.duration or 0) * tick)
                if not 0 < length < rate * 60:  # none, or a damaged one
                    length = last
                block = np.broadcast_to(np.float32(0), (length, self.channels))
            at = position
            stands, before = pts == before, pts  # a time stamp that stands still tells nothing
            if pts is not None and not stands and not by_count:
                at = round(pts * tick - zero) + self._shift
                if abs(at - position) > rate and following is not None:  # one damaged time stamp moves nothing
                    after = round(following * tick - zero) + self._shift
                    at = at if abs(after - at) <= abs(after - position) else position
                ahead = min(_LATE_S * rate if self._opened.joined else left, end + _LATE_S * rate - position)
                if not -_MOST_BACK_S * rate < at - position <= ahead:
                    self._shift += position - at  # its times begin anew: it is heard where it comes
                    at = position
                if abs(at - position) <= jitter:
                    at = position
            left += length * _PAUSES - (at - position)
            # note: beside damage, a gap is what it took
            is_hole = self._opened.kind == "ogg" or self._opened.place is not None or damaged
            is_hole = is_hole or (packet is not None and block is not None)
            shown = (round(hole * tick - zero) + self._shift for hole in self._opened.holes)
            is_hole = is_hole or any(abs(hole - at) < rate / 5 for hole in shown)
            damaged = packet is not None
            while position < at:
                silence = np.zeros((min(_SILENCE, at - position), self.channels), np.float32)
                yield position, silence, rate, _HOLE if is_hole else None
                position += len(silence)
            if at + length <= position:
                continue  # heard already
            block = block[round((position - at) * scale) :]
            yield position, block, its_rate, packet
            position = at + length

    def _is_silence(self, packet: Any) -> bool:
        """Whether a packet that does not decode stands for a pause: AMR sends a few bytes instead of speech (3GPP TS
        26.101 and 26.201, frame types from SID on)."""
        name = self._opened.stream.codec_context.name
        if "amr" not in name or not packet.size:
            return False
        kind = bytes(packet)[0] >> 3 & 15
        return kind >= (9 if "wb" in name else 8)

    def _frames_declared(self) -> int | None:
        """Length in frames, where the track itself tells it in a time base as fine as its samples."""
        duration, base = self._opened.stream.duration, self._opened.base
        unpadded = self._opened.kind in ("apm", "kvag")
        known = not (self._bare or self._by_count or unpadded or duration is None or base * self.sample_rate > 1)
        return int(duration * base * self.sample_rate) if known else None

    def _start(self, first: int) -> tuple[int, Iterator[Unit]]:
        """Units from before `first` on, and the source frame they start at: through the index where there is one and it
        lands before `first`, else by passing over packets from the beginning."""
        target = max(0, first - int(_PREROLL_S * self.sample_rate))
        if target == 0 or self._decodes_all:
            return 0, chain(self._first, self._opened.units)
        if not self._from_start:
            pts = int((target / self.sample_rate + self._zero) / self._opened.base)
            with contextlib.suppress(av.error.FFmpegError):
                self._opened.seek(pts)
                self._opened.skip_to = pts
                began: list[Unit] = []
                for unit in self._opened.units:
                    began.append(unit)
                    if unit[1] is not None:
                        break
                found = next((unit for unit in began if unit[0] is not None), None)
                if found is not None and (position := self._landing(found)) <= first:
                    return position, chain(began, self._opened.units)
            self._file.check()
        self._reopen()
        return self._pass_over(target)

    def _pass_over(self, target: int) -> tuple[int, Iterator[Unit]]:
        """Units from source frame `target` on, or a little before, and where they start: the packets before are counted
        and not decoded."""
        packets, end = self._opened.packets(), 0
        fetched: Any = None

        def undecoded() -> Iterator[Unit]:
            nonlocal fetched
            for fetched in packets:
                if fetched.size:
                    yield fetched.pts, None, 0, fetched

        for at, block, _, packet in self._placed(undecoded(), 0):
            if packet is None or packet is _HOLE:  # a gap, which is silence
                continue
            if at + len(block) > target:
                ahead = (packet,) if fetched is packet else (packet, fetched)
                return end, self._opened.decoded(chain(ahead, packets))
            end = at + len(block)
        return end, iter(())

    def _landing(self, unit: Unit) -> int:
        """Source frame a unit starts at. Matroska rounds times to 1 ms: where all frames have one length, the place is
        the multiple of it that the rounded time means."""
        pts, block, _, _ = unit
        position = round((float((pts or 0) * self._opened.base) - self._zero) * self.sample_rate) + self._shift
        if block is None:
            return position
        snapped = self._lengths + round((position - self._lengths) / len(block)) * len(block)
        return snapped if abs(snapped - position) <= 2 * self._opened.base * self.sample_rate else position

    def _reopen(self) -> None:
        self._opened.close()
        self._opened, self._shift = self._open(), 0

    def ended_early(self) -> bool:
        if self._end is None or self._file.cut:
            return self._end is not None
        info, opened = self.info(), self._opened
        if opened.began_later and not opened.starts:
            return True  # another sound track, as where streams are joined
        if info.duration_source != "header" or info.duration_s is None:
            return False
        if opened.starts and opened.kind != "mov":
            return False  # what is declared is how long the pictures last
        return self._end / self.sample_rate < info.duration_s - 0.5


_TOLERATED_S = 0.1  # between what a header declares and where the last packet ends
