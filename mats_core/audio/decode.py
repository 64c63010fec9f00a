"""From a seekable file to what its header says, and to a mono waveform. NumPy only: no torch, no Ray.

Codes of AudioError: not_audio, empty_audio, decode_failed, too_large, timeout, refused, and those of storage
(not_found, access_denied, io_error).
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from pydantic import BaseModel, ConfigDict, Field

from mats_core.audio.chunks import has_no_sound
from mats_core.audio.ends import lacks_index
from mats_core.audio.file import AudioError, AudioInfo, Block, Reader, Source, SourceFile
from mats_core.audio.levels import SILENT, LevelMeter, Levels
from mats_core.audio.readers.container import NO_DECODER
from mats_core.audio.readers.ffmpeg import FfmpegSource
from mats_core.audio.readers.flac import FlacSource
from mats_core.audio.readers.libsndfile import LibsndfileSource
from mats_core.audio.readers.mp3 import Mp3Source
from mats_core.audio.readers.ogg import Joined
from mats_core.audio.repair import repair
from mats_core.audio.signatures import HEAD_BYTES, Signature, sniff
from mats_core.storage.uris import local_path

_SMALL_FILE = 1 << 20  # read at once: cheaper than many small reads
_COUNTED_AHEAD = 4 << 20
_GATHERED = 1 << 15  # frames
# Decoded beyond what was asked: the resampler's filter sees its neighbourhood, and codecs with memory have settled.
_BEFORE_S, _AFTER_S = 0.5, 0.1


class DecodeLimits(BaseModel):
    """What one file may cost; beyond it the file is answered with too_large or timeout instead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = Field(8 << 30, gt=0, description="largest file, in bytes")
    max_seconds: float = Field(1800.0, gt=0, description="longest stretch of audio decoded at once, in seconds")
    max_sample_rate: int = Field(768_000, gt=0, description="highest sample rate a file may declare, in Hz")
    min_sample_rate: int = Field(1000, gt=0, description="lowest sample rate a file may declare, in Hz")
    max_channels: int = Field(64, gt=0, description="most channels a file may declare")
    memory_bytes: int = Field(1 << 30, gt=0, description="memory a decoder process may take for one file, in bytes")
    deadline_s: float = Field(20.0, gt=0, description="time one file may take, in seconds")
    store_s: float = Field(100.0, gt=0, description="further time a file that is not local may take to arrive")

    def for_uri(self, uri: str) -> DecodeLimits:
        """The limits of one file: what comes from a store may take longer."""
        if local_path(uri) is not None:
            return self
        return self.model_copy(update={"deadline_s": self.deadline_s + self.store_s})


@dataclass(frozen=True)
class Decoded:
    """`samples`: int16 [T], mono, at the rate asked for. `decoded_s`: their length in seconds. `complete`
    is False where the file broke off or was damaged inside the stretch asked for, `lost_s` the seconds of it that could
    not be decoded, as far as known. `end_s`: where the sound of the file ends, where reading came to it."""

    samples: npt.NDArray[np.int16]
    decoded_s: float
    complete: bool
    lost_s: float = 0.0
    end_s: float | None = None
    levels: Levels = SILENT
    remark: str = ""


def probe(file: BinaryIO, name: str = "", limits: DecodeLimits | None = None) -> AudioInfo:
    """What the header of a seekable file says. `name` tells playlists that their text does not. Raises
    AudioError."""
    limits = limits or DecodeLimits()
    checked = _checked(file, limits, time.monotonic() + limits.deadline_s)
    repair(checked, until_s=None, in_memory=False)
    with _open_within(limits, checked, reader_order(checked), name) as source:
        declared = source.info()
        found = source.checked(declared)
        reader = source.reader
    return found or _counted(file, checked, reader, declared, limits)


def _counted(
    file: BinaryIO, checked: SourceFile, reader: Reader, declared: AudioInfo, limits: DecodeLimits
) -> AudioInfo:
    """`declared` with the length that is counted; as an estimate where counting takes longer than a file may."""
    # note: read in large pieces; a remote file was opened for small ones
    large = io.BufferedReader(file, _COUNTED_AHEAD) if isinstance(file, io.RawIOBase) else None
    try:
        counted = checked.over(large or file, time.monotonic() + limits.deadline_s)
        # note: what libsndfile says of frames it has from the header as well
        with _open_within(limits, counted, ("ffmpeg",) if reader == "libsndfile" else (reader,), "") as source:
            found = source.counted()
        counted.check()
    except AudioError as error:
        if error.code not in ("timeout", "decode_failed", "not_audio", "empty_audio"):
            raise
        found = None
    finally:
        if large is not None:
            large.detach()
    return replace(found, format=declared.format) if found else replace(declared, duration_source="unknown")


def decode(
    file: BinaryIO,
    *,
    sample_rate: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
    limits: DecodeLimits | None = None,
    name: str = "",
    channel: int | None = None,
) -> Decoded:
    """Decode a stretch of a seekable file to int16 mono at `sample_rate` (channels averaged, floats clipped). Where
    the channels cancel each other out, so that their mean is silence, the first is heard alone. `channel`: hear that
    one alone, from 0; one that the file does not have is refused.

    `duration_s=None` reads to the end of the file. Output sample n is the sound at n / sample_rate seconds,
    whatever the stretch, so that consecutive stretches join without a seam. NaN and infinity count as
    silence, and as lost. A stretch that starts past the end is empty and no error; a file that breaks off gives
    what was there.

    Raises AudioError: not_audio, empty_audio, decode_failed, too_large, timeout, refused, io_error.
    """
    limits = limits or DecodeLimits()
    if start_s < 0 or not math.isfinite(start_s) or (duration_s is not None and not duration_s >= 0):
        length = "all" if duration_s is None else f"{duration_s:g} s"
        raise AudioError("refused", f"is asked for {length} from {start_s:g} s on, which is no stretch of a sound")
    if duration_s is not None and duration_s > limits.max_seconds:
        raise AudioError("too_large", f"{duration_s:.0f} s asked at once, {limits.max_seconds:.0f} s are allowed")
    deadline = time.monotonic() + limits.deadline_s
    first = round(start_s * sample_rate)
    count = None if duration_s is None else round((start_s + duration_s) * sample_rate) - first
    checked = _checked(file, limits, deadline)
    in_memory = checked.size <= _SMALL_FILE
    if in_memory and not isinstance(file, io.BytesIO):
        checked = SourceFile(io.BytesIO(checked.head(checked.size)), deadline)
    repair(checked, None if duration_s is None else start_s + duration_s + _AFTER_S, in_memory)
    order = reader_order(checked)
    found: list[Decoded] = []
    failure: AudioError | None = None
    declared_s: float | None = None
    for tried in range(len(order)):
        try:
            # a reader that cannot open the file passes it on by itself
            left = order if not tried else order[tried : tried + 1]
            with _open_within(limits, checked, left, name) as source:
                if channel is not None and channel >= source.channels:
                    raise AudioError("refused", f"has {source.channels} channels, and channel {channel} is asked for")
                found.append(_read(source, sample_rate, first, count, limits, deadline, checked.missing, channel))
                declared_s = declared_s or source.declared_s
                whole = not source.broken or source.passes_damage
            if found[-1].levels.cancels and channel is None:
                with _open_within(limits, checked, left, name) as source:
                    one = _read(source, sample_rate, first, count, limits, deadline, checked.missing, 0)
                    found[-1] = replace(one, remark="its channels cancel each other out; the first is heard alone")
            if whole:
                break
        except AudioError as error:
            if error.code != "decode_failed":
                raise
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    best = max(reversed(found), key=lambda each: len(each.samples))  # of equal ones that which passed over damage
    if len(found) > 1:  # the first one met damage; the second may only have passed over it
        # note: nor may it last longer than declared, as FFmpeg's output of a damaged FLAC does
        declared = len(best.samples) if not declared_s else max(0, math.ceil(declared_s * sample_rate) - first)
        samples = best.samples[: max(declared, len(found[0].samples))]
        best = replace(best, samples=samples, decoded_s=len(samples) / sample_rate, complete=False)
    if first == 0 and not len(best.samples) and count != 0:
        if best.complete or not declared_s:
            raise AudioError("empty_audio", "has a header but no samples")
        raise AudioError("decode_failed", f"declares {declared_s:.1f} s of audio, but none of it can be decoded")
    return best


def _checked(file: BinaryIO, limits: DecodeLimits, deadline: float) -> SourceFile:
    """The file for decoders; AudioError empty_audio or too_large by its size."""
    checked = SourceFile(file, deadline)
    if checked.size == 0:
        raise AudioError("empty_audio", "the file is empty (0 bytes)")
    if checked.size > limits.max_bytes:
        raise AudioError("too_large", f"the file has {checked.size} bytes, {limits.max_bytes} are allowed")
    return checked


def _open_within(limits: DecodeLimits, file: SourceFile, order: tuple[Reader, ...], name: str) -> Source:
    """The file opened by the first of the readers that can; AudioError where its header goes beyond the limits."""
    source = open_source(file, order, name)
    rate, channels = source.sample_rate, source.channels
    error = None
    if rate > limits.max_sample_rate:
        error = AudioError("too_large", f"declares a sample rate of {rate} Hz, {limits.max_sample_rate} are allowed")
    elif channels > limits.max_channels:
        error = AudioError("too_large", f"declares {channels} channels, {limits.max_channels} are allowed")
    elif rate < limits.min_sample_rate or channels < 1:
        error = AudioError("decode_failed", f"declares {channels} channels at {rate} Hz, which is no usable audio")
    if error is not None:
        source.close()
        raise error
    return source


def _read(
    source: Source,
    rate: int,
    first: int,
    count: int | None,
    limits: DecodeLimits,
    deadline: float,
    missing: float,
    heard: int | None = None,
) -> Decoded:
    """Samples [first, first + count) at `rate`. Reading starts where source and output samples coincide, a
    margin early. heard: the only channel that is heard; None: the mean of all."""
    common = math.gcd(source.sample_rate, rate)
    step_in, step_out = source.sample_rate // common, rate // common
    before, after = math.ceil(_BEFORE_S * source.sample_rate), math.ceil(_AFTER_S * source.sample_rate)
    periods = max(0, (first * step_in // step_out - before) // step_in)
    stop = None if count is None else math.ceil((first + count) * step_in / step_out) + after
    track = _MonoTrack(rate, first - periods * step_out, count, limits.max_seconds)
    for block, block_rate in _gathered(source.blocks(periods * step_in, stop)):
        track.add(block if heard is None or heard >= block.shape[1] else block[:, heard : heard + 1], block_rate)
        if time.monotonic() > deadline:
            raise AudioError("timeout", f"decoding took longer than {limits.deadline_s:.0f} s")
    samples = track.finish()
    if track.seen and track.finite == 0:
        raise AudioError("decode_failed", "holds no finite sample (all NaN or infinite)")
    short = (count is None or len(samples) < count) and source.ended_early()
    lost_s, end_s = source.lost_s, source.end_s
    if short:
        declared_s = source.declared_s if source.info().duration_source == "header" else None
        promised = max(declared_s or 0.0, (end_s or 0.0) * (1.0 + missing) if missing else 0.0)
        whole = max(0.0, promised - first / rate)
        whole = whole if count is None else count / rate if not whole else min(whole, count / rate)
        lost_s += max(0.0, whole - len(samples) / rate)
    not_finite_s = track.not_finite_s if track.not_finite_s >= 0.001 else 0.0  # a tag behind raw samples, say
    lost_s += not_finite_s
    lost_s = lost_s if count is None else min(lost_s, count / rate)
    whole = not source.broken and not short and not not_finite_s
    return Decoded(samples, len(samples) / rate, whole, round(lost_s, 3), end_s, track.meter.levels())


def _gathered(blocks: Iterator[tuple[Block, int]]) -> Iterator[tuple[Block, int]]:
    """Small blocks put together: a codec's frame is a few milliseconds, and each costs a resampler's call."""
    held: list[Block] = []
    rate = length = 0
    for block, its_rate in blocks:
        if held and (its_rate != rate or length >= _GATHERED or block.shape[1] != held[0].shape[1]):
            yield (np.concatenate(held) if len(held) > 1 else held[0]), rate
            held, length = [], 0
        held.append(block)
        rate, length = its_rate, length + len(block)
    if held:
        yield (np.concatenate(held) if len(held) > 1 else held[0]), rate


class _MonoTrack:
    """Blocks float32 [T, C] in, int16 mono out: averaged, resampled as they come, cut to [skip, skip + count).
    AudioError too_large where that lasts longer than `most_s`."""

    def __init__(self, rate: int, skip: int, count: int | None, most_s: float) -> None:
        self._rate, self._source_rate, self._most_s = rate, 0, most_s
        self._skip, self._count = skip, count
        self._resampler: soxr.ResampleStream | None = None
        self._blocks: list[npt.NDArray[np.int16]] = []
        self.written = 0  # samples that came out
        self.seen = 0  # source samples that went in, of all channels
        self.finite = 0  # of these, finite ones
        self.not_finite_s = 0.0  # seconds, within the stretch, in which a channel is not
        self.meter = LevelMeter()  # of the stretch, before it is resampled
        self._begin_s = skip / rate  # where the stretch begins and ends, counted from the first block
        self._end_s = math.inf if count is None else (skip + count) / rate
        self._elapsed_s = 0.0

    def add(self, block: npt.NDArray[np.float32], source_rate: int) -> None:
        if source_rate != self._source_rate:  # some streams change their rate on the way
            self._flush()
            self._source_rate = source_rate
            if source_rate != self._rate:
                self._resampler = soxr.ResampleStream(source_rate, self._rate, 1, dtype="float32", quality="HQ")
        self.seen += block.size
        inside = slice(
            max(0, round((self._begin_s - self._elapsed_s) * source_rate)),
            max(0, round((min(self._end_s, self._elapsed_s + 1e6) - self._elapsed_s) * source_rate)),
        )
        self._elapsed_s += len(block) / source_rate
        if block.max(initial=0.0) <= 100.0 and block.min(initial=0.0) >= -100.0:
            self.finite += block.size
        else:  # a float file with NaN, infinity, or values that would swamp the resampler
            finite = np.isfinite(block)
            self.finite += int(finite.sum())
            self.not_finite_s += float((~finite[inside]).any(axis=1).sum()) / source_rate
            block = np.clip(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), -100.0, 100.0)
        mono = np.ascontiguousarray(block[:, 0])
        if block.shape[1] > 1:
            mono = mono + block[:, 1]
            for channel in range(2, block.shape[1]):  # note: five times as fast as a mean over the short axis
                mono += block[:, channel]
            mono *= np.float32(1.0 / block.shape[1])
        self.meter.add(block[inside], mono[inside])
        self._write(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def finish(self) -> npt.NDArray[np.int16]:
        self._flush()
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)

    def _flush(self) -> None:
        if self._resampler is not None:
            self._write(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def _write(self, mono: npt.NDArray[np.float32]) -> None:
        dropped = min(self._skip, len(mono))
        self._skip -= dropped
        mono = mono[dropped:]
        if self._count is not None:
            mono = mono[: self._count - self.written]
        if len(mono):
            self.written += len(mono)
            if self.written > math.ceil(self._most_s * self._rate):
                raise AudioError("too_large", f"lasts longer than the {self._most_s:.0f} s allowed at once")
            scaled = mono * np.float32(32768.0)
            np.rint(scaled, out=scaled)
            np.clip(scaled, -32768.0, 32767.0, out=scaled)
            self._blocks.append(scaled.astype(np.int16))


def reader_order(file: SourceFile) -> tuple[Reader, ...]:
    """Which readers are to try a file, the best first.

    libsndfile 1.2.2 takes raw AAC for broken MP3, and believes what an MP3 says of its length; of Ogg it passes over
    damage without a word, lands up to a block away when it seeks into the last page, and shifts the first page of Opus
    by its pre-skip. Of joined streams it knows the first.
    """
    if file.tagged:
        return ("mp3", "libsndfile", "ffmpeg")
    name = _signature(file).name
    if name in ("AAC", "Opus", "Ogg") or file.joined:
        return ("ffmpeg",)
    if name == "FLAC":
        return ("libsndfile", "flac", "ffmpeg")
    if name == "VOC":
        return ("ffmpeg",)  # libsndfile takes the headers of its blocks for samples
    return ("mp3", "ffmpeg", "libsndfile") if name == "MP3" else ("libsndfile", "ffmpeg")


def _signature(file: SourceFile, name: str = "") -> Signature:
    return Signature("audio", "MP3") if file.tagged else sniff(file.head(HEAD_BYTES), name)


def open_source(file: SourceFile, order: tuple[Reader, ...], name: str = "") -> Source:
    """Open with the first reader that can. Raises AudioError when none can, with the reason of the one that
    knows most."""
    signature = _signature(file, name)
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
            if signature.name == "MP4" and lacks_index(file):
                raise AudioError("decode_failed", _NO_INDEX) from None
            if error.code != "decode_failed" or error.message.startswith(NO_DECODER):
                raise
            reason = reason or error.message
    if signature.name == "WAV" and has_no_sound(file):
        raise AudioError("empty_audio", "is a WAV header without samples")
    if signature.kind == "audio":
        if reason == _NO_SAMPLES:
            raise AudioError("empty_audio", f"is {signature.name} with a header but no samples")
        detail = "" if _UNHELPFUL_REASONS.search(reason) else f" ({reason})"
        raise AudioError("decode_failed", f"starts like {signature.name}, but is damaged or cut off{detail}")
    raise AudioError("not_audio", f"is not audio: {_starts_with(signature)}")


_NO_SAMPLES = "no samples"
_NO_INDEX = "is an MP4 that breaks off before its index (moov), without which no sound in it is found: its upload ended"
# What decoders say when they do not know themselves; to a person it would be noise, or wrong.
_UNHELPFUL_REASONS = re.compile(
    "Invalid data|End of file|Internal error|unknown error|malformed|does not exist|no frame|Internal psf_fseek"
)


def _open_with(reader: Reader, file: SourceFile, signature: Signature) -> Source:
    if file.links:
        return Joined(file)
    if reader == "ffmpeg":
        return FfmpegSource(file, signature)
    if reader == "flac":
        return FlacSource(file)
    if reader == "mp3":
        return Mp3Source(file, file.format or "mp3")
    source = LibsndfileSource(file, signature)
    if source.frames <= 0:
        source.close()
        raise AudioError("decode_failed", _NO_SAMPLES)
    return source


def _starts_with(signature: Signature) -> str:
    begins = signature.name in ("text", "HTML", "zero bytes") or signature.kind == "unknown"
    return f"{'starts with' if begins else 'it is'} {signature.name}"
