"""The sound of a row: its stretch as WAV and as a picture, decoded in the sandbox; its file as it is."""

from __future__ import annotations

import io
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import soundfile

from mats_core import storage
from mats_core.audio.decode import Decoded, DecodeLimits
from mats_core.audio.file import AudioError
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.batches import raised
from mats_core.storage.uris import to_uri
from pipelines.pages.media import SAMPLE_RATE, spectrogram_webp
from pipelines.serve.remembering import Remembering

DECODERS = 2
LONGEST_S = 120.0
"""Of one stretch. A row of `--per file` may be hours long."""
RATES = (8_000, 48_000)
"""Hz, of WAV that is sent to a browser."""
KEPT_SOUNDS, KEPT_PICTURES = 24, 1000
BLOCK = 1 << 18
PLAYED = {
    "wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg", "opus": "audio/ogg",
    "webm": "audio/webm", "m4a": "audio/mp4", "mp4": "audio/mp4", "aac": "audio/aac",
}  # fmt: skip
"""Formats that browsers play as they are → their names there. Of all others the file is for keeping."""


class Sounds:
    """Decodes for whoever asks, in a few processes; the last stretches and pictures are kept."""

    def __init__(self) -> None:
        self._free: queue.Queue[IsolatedDecoder] = queue.Queue()
        self._all = [IsolatedDecoder(1, SAMPLE_RATE, DecodeLimits()) for _ in range(DECODERS)]
        for each in self._all:
            self._free.put(each)
        self._sounds, self._pictures = Remembering(KEPT_SOUNDS), Remembering(KEPT_PICTURES)

    @contextmanager
    def _decoder(self) -> Iterator[IsolatedDecoder]:
        found = self._free.get()
        try:
            yield found
        finally:
            self._free.put(found)

    def heard(self, row: dict[str, Any], rate: int) -> Decoded:
        """The stretch of a row, int16 mono at `rate`. Raises AudioError."""
        seconds = min(row.get("decoded_s") or row.get("duration_s") or LONGEST_S, LONGEST_S)
        return self.stretch(row["uri"], row.get("start_s") or 0.0, seconds, rate, row.get("only_channel"))

    def stretch(self, uri: str, start_s: float, seconds: float, rate: int, channel: int | None = None) -> Decoded:
        """A stretch of a file. Raises AudioError, also where there is no sound in it."""
        asked = DecodeRequest(to_uri(uri), start_s, seconds, channel=channel)
        with self._decoder() as decoder:
            (found,) = raised(decoder.decode_many([asked], rate))
        if not len(found.samples):
            raise AudioError("empty_audio", "there is no sound there")
        return found

    def check(self, uri: str) -> None:
        """Raise AudioError for a file that is no sound."""
        with self._decoder() as decoder:
            raised(decoder.probe_many([to_uri(uri)]))

    def wav(self, key: Any, row: dict[str, Any]) -> bytes:
        """The stretch as a WAV file at the file's own rate, mono."""
        rate = int(np.clip(row.get("sample_rate") or SAMPLE_RATE, *RATES))
        return self._sounds.get(key, lambda: wav_bytes(self.heard(row, rate).samples, rate))

    def picture(self, key: Any, row: dict[str, Any]) -> bytes:
        """The spectrogram of the stretch, WebP."""
        return self._pictures.get(key, lambda: spectrogram_webp(self.heard(row, SAMPLE_RATE).samples))

    def close(self) -> None:
        """End the processes."""
        for each in self._all:
            each.close()


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """int16 [T] mono as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, last) of a Range header over `size` bytes; None for none, or for one that is more than one range.

    Raises ValueError for a range that there is not.
    """
    if not header or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header[6:].strip().partition("-")
    if not dash or not (first or last) or not (first + last).isdecimal():
        return None
    if not first:
        start, end = max(0, size - int(last)), size - 1
        if int(last) == 0:
            raise ValueError("no such range")
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start > end or start >= size:
        raise ValueError("no such range")
    return start, end


def file_size(uri: str) -> int:
    """The bytes of a file, also where its store does not tell: of a row of Parquet, of HTTP without a length.

    Raises StorageError.
    """
    if size := storage.stat(uri).size:
        return size
    with storage.open_binary(uri, read_ahead=BLOCK) as file:
        return file.seek(0, io.SEEK_END)


def file_blocks(uri: str, first: int, last: int) -> Iterator[bytes]:
    """The bytes of a file from `first` to `last`, a block at a time. Raises StorageError."""
    with storage.open_binary(uri, read_ahead=BLOCK) as file:
        yield from _blocks(file, first, last)


def _blocks(file: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    file.seek(first)
    left = last - first + 1
    while left > 0 and (block := file.read(min(BLOCK, left))):
        left -= len(block)
        yield block
