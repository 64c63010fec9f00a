"""What a program may give as a sound: a path or URI, an open file, or samples with their rate; and its chunks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mats_core.audio.decode import Decoded, DecodeLimits
from mats_core.audio.file import AudioError, AudioInfo, as_audio_error
from mats_core.audio.levels import levels_of
from mats_core.audio.sandbox import DecodeRequest, warm_decoder
from mats_core.audio.windows import chunk_seconds, chunk_starts, no_stretch, stretch_starts
from mats_core.batches import raised
from mats_core.errors import SettingsError
from mats_core.storage.uris import to_uri

_BLOCK = 1 << 20
_MOST_CHANNELS = 64
_ROUNDED_S = 1e-3  # by so much a table may have rounded where a chunk begins
_SOUNDS = "give a path, a URI, an open file, (waveform, sample_rate), or a list of them"


class Stretch(NamedTuple):
    """The part of a sound that is heard: from `start_s` to `end_s`, in seconds, and of which channel.

    start_s and end_s: neither: all of the sound; no start: from the beginning; an end of infinity: to the end of the
    sound. A start alone means one chunk, as answers of `mats caption` have it: the one that begins there when the sound
    is cut into chunks, or else as much sound from there on as a chunk has. channel: the only one that is heard, counted
    from 0; None: the mean of all.
    """

    start_s: float | None = None
    end_s: float | None = None
    channel: int | None = None


def decoded_chunks(
    source: Any,
    rate: int,
    window_seconds: float,
    sample_rate: int | None = None,
    stretch: Stretch | None = None,
    info: AudioInfo | None = None,
) -> list[tuple[float, Decoded]]:
    """(start in seconds, its sound at `rate`) of each chunk that has sound in it; of a stretch, where one is given, of
    which nothing else is decoded. info: the header of a file, where it is known. Raises AudioError for what cannot be
    decoded and for a stretch that begins before the sound or ends before it begins, SettingsError for what is no sound,
    and for a channel that samples do not have (that of a file is an AudioError)."""
    chunk_s, stretch = chunk_seconds(window_seconds), stretch or Stretch()
    if (why := no_stretch(stretch.start_s or 0.0, stretch.end_s)) is not None:
        raise AudioError("refused", why)
    given = samples_of(source, sample_rate, stretch.channel)
    if given is not None:
        samples = _resampled(*given, rate)
        parts = [
            (start, samples[round(start * rate) : None if length is None else round((start + length) * rate)])
            for start, length in _heard(len(samples) / rate, chunk_s, stretch)
        ]
        return [
            (start, Decoded(chunk, len(chunk) / rate, True, levels=levels_of(chunk)))
            for start, chunk in parts
            if len(chunk)
        ]
    found: list[tuple[float, Decoded]] = []
    with on_disk(source) as place:
        uri = to_uri(place)
        decoder = warm_decoder()  # a file may end the process it is decoded in
        if info is None:
            (info,) = raised(decoder.probe_many([uri]))
        asked = [
            DecodeRequest(uri, start, length, channel=stretch.channel)
            for start, length in _heard(info.duration_s, chunk_s, stretch)
        ]
        for request, decoded in zip(asked, raised(decoder.decode_many(asked, rate)), strict=True):
            if len(decoded.samples):
                found.append((request.start_s, decoded))
            elif found:  # the header promised more than there is
                found[-1] = (found[-1][0], replace(found[-1][1], complete=False))
    return found


def _heard(duration_s: float | None, chunk_s: float, stretch: Stretch) -> Sequence[tuple[float, float | None]]:
    """(start, length) in seconds of what is decoded; no length: to the end of the sound."""
    start, end, _ = stretch
    if start is None or end is not None:
        return stretch_starts(duration_s, chunk_s, start or 0.0, end)
    chunks = chunk_starts(duration_s, chunk_s)
    return [next((chunk for chunk in chunks if abs(chunk[0] - start) < _ROUNDED_S), (start, chunk_s))]


def samples_of(
    source: Any, sample_rate: int | None = None, channel: int | None = None
) -> tuple[np.ndarray, int] | None:
    """A waveform, float32 [T] in [-1, 1], and its rate in Hz; None for a source that is no samples.

    source: (waveform, rate) or, as SciPy gives them, (rate, waveform); a waveform alone where `sample_rate` says its
    rate. A waveform is [T], or of two axes, of which the shorter one is the channels, which are averaged, but for
    `channel`, where one is given: what NumPy makes an array of, a tensor too. Whole numbers are samples of their width
    (int16 ÷ 32768). Raises SettingsError, for a channel that there is not too.
    """
    if isinstance(source, tuple) and len(source) == 2:
        waveform, rate = reversed(source) if isinstance(source[0], Integral) else source
        if not isinstance(rate, (Integral, float)) or rate < 1:
            raise SettingsError("source", f"its sample rate is {rate!r}", "give (waveform, samples a second)")
        return _mono(waveform, channel), int(rate)
    if not hasattr(source, "__array__"):
        return None
    if sample_rate is None:
        kind = type(source).__name__
        raise SettingsError("source", f"it is of type {kind}, without a rate", f"{_SOUNDS}, or say sample_rate=")
    return _mono(source, channel), int(sample_rate)


@contextmanager
def on_disk(source: Any) -> Iterator[str | bytes | Any]:
    """A path or URI as it is; what is left of an open file, from where it stands, as a path while the context lasts.

    The file need not be seekable. Raises SettingsError for what is neither, AudioError where it cannot be read.
    """
    if isinstance(source, (str, bytes)) or hasattr(source, "__fspath__"):
        yield source
        return
    if not callable(getattr(source, "read", None)):
        raise SettingsError("source", f"it is of type {type(source).__name__}", _SOUNDS)
    with tempfile.NamedTemporaryFile(prefix="mats-sound-") as copy:
        _copy(source, copy)  # type: ignore[arg-type]
        copy.flush()
        yield copy.name


def _copy(source: Any, copy: BinaryIO) -> None:
    most, length = DecodeLimits().max_bytes, 0
    while length <= most:  # of one that is too large or endless, just enough to be refused
        try:
            block = source.read(_BLOCK)
        except Exception as error:
            raise as_audio_error(error) from error
        if not isinstance(block, (bytes, bytearray, memoryview)):
            raise SettingsError("source", f"reading it gives {type(block).__name__}, not bytes", 'open it with "rb"')
        if not block:
            return
        length += copy.write(block)


def _mono(waveform: Any, channel: int | None) -> np.ndarray:
    if hasattr(waveform, "detach"):  # a tensor, wherever it is and of whatever type
        waveform = waveform.detach().cpu()
        waveform = waveform.float() if waveform.is_floating_point() else waveform
    samples = np.asarray(waveform)
    if samples.dtype.kind not in "fiu":
        raise SettingsError(
            "source", f"its waveform is of {samples.dtype}", "give numbers: float32 in [-1, 1], or int16"
        )
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind in "iu":
        samples = (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    samples = np.nan_to_num(samples.astype(np.float32, copy=False), nan=0.0, posinf=0.0, neginf=0.0)
    if samples.ndim == 2 and (min(samples.shape) == 1 or min(samples.shape) <= _MOST_CHANNELS < max(samples.shape)):
        by_channel = samples if samples.shape[0] <= samples.shape[1] else samples.T
    elif samples.ndim == 1:
        by_channel = samples[None]
    else:
        remedy = "give samples [T], or channels beside them, [C, T] or [T, C]"
        raise SettingsError("source", f"a waveform of shape {list(samples.shape)} is not mono", remedy)
    if channel is None:
        return samples if samples.ndim == 1 else by_channel.mean(axis=0, dtype=np.float32)
    if not 0 <= channel < len(by_channel):
        problem = f"channel {channel} is asked for, and the samples have {len(by_channel)}"
        raise SettingsError("channel", problem, "channels are counted from 0; without one the mean of all is heard")
    return np.ascontiguousarray(by_channel[channel])


def _resampled(waveform: np.ndarray, given: int, rate: int) -> np.ndarray:
    """A waveform float32 [T] at `rate`, as int16, as between the stages of a run: so both ways give the same answer."""
    if given != rate:
        import soxr

        waveform = soxr.resample(waveform, given, rate, quality="HQ")
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
