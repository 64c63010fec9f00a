"""A sound as bytes: its file as it lies there, or a stretch of it, decoded and written as FLAC."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile

from mats_core import storage
from mats_core.audio.decode import DecodeLimits
from mats_core.audio.file import AudioError
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.errors import StorageError
from pipelines.export.places import shown
from pipelines.export.rows import Row, length_of

AT_ONCE = 16
USUAL_RATE, MOST_RATE = 16_000, 192_000
"""Hz, of a stretch whose file does not say its own, and at most."""
MOST_BYTES = 1 << 30
"""A larger file is left out: it would be in memory whole."""
_ENDING = re.compile(r"[a-z0-9]{1,5}")


def sounds(rows: Iterable[Row], per: str) -> Iterator[tuple[Row, bytes | None, str]]:
    """(row, bytes or None, ending or why not) of each row: the whole file where rows are files, else the row's stretch.

    Rows that failed, and sounds that cannot be read any more, have no bytes.
    """
    if per == "file":
        yield from ((row, *_file(row)) for row in rows)
        return
    with IsolatedDecoder(workers=2, sample_rate=USUAL_RATE, limits=DecodeLimits()) as decoder:
        waiting: list[Row] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == AT_ONCE:
                yield from _stretches(decoder, waiting)
                waiting = []
        yield from _stretches(decoder, waiting)


def _file(row: Row) -> tuple[bytes | None, str]:
    if row.get("error_code"):
        return None, str(row["error_code"])
    try:
        if storage.stat(row["uri"]).size > MOST_BYTES:
            return None, "too_large"
        data = storage.read_bytes(row["uri"])
    except StorageError as error:
        return None, error.code
    ending = shown(row["uri"]).rpartition(".")[2].lower()
    return data, ending if _ENDING.fullmatch(ending) else str(row.get("format") or "audio")


def _stretches(decoder: IsolatedDecoder, rows: list[Row]) -> Iterator[tuple[Row, bytes | None, str]]:
    rates = [min(int(row.get("sample_rate") or USUAL_RATE), MOST_RATE) for row in rows]
    found: dict[int, tuple[bytes | None, str]] = {
        at: (None, str(row["error_code"])) for at, row in enumerate(rows) if row.get("error_code")
    }
    for rate in set(rates):
        at = [place for place, own in enumerate(rates) if own == rate and place not in found]
        asked = [_request(rows[place]) for place in at]
        for place, heard in zip(at, decoder.decode_many(asked, rate), strict=True):
            if isinstance(heard, AudioError):
                found[place] = (None, heard.code)
            else:
                found[place] = (flac(heard.samples, rate), "flac") if len(heard.samples) else (None, "empty_audio")
    yield from ((row, *found[place]) for place, row in enumerate(rows))


def _request(row: Row) -> DecodeRequest:
    channel = row.get("only_channel")
    return DecodeRequest(row["uri"], row.get("start_s") or 0.0, length_of(row), channel=channel)


def flac(samples: np.ndarray, rate: int) -> bytes:
    """int16 [T] mono as a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
