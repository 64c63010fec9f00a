"""Entries → manifest rows, one a chunk, from the headers of files. Limited processes read them, as a stream.

`mats scan` and the work list of `mats caption` both get their rows here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.inputs import CHANNEL, Entry
from pipelines.settings.archive import INPUT_NAMES, LimitSettings

PROBE_BATCH = 256
"""Files whose headers are asked for at once."""
STORE_WORKERS = 4 * (os.cpu_count() or 1)
"""Processes that read headers from a store: there they mostly wait for it (36 ms a file, 6 of them work)."""

LIMIT_NAMES = {
    "max_file_bytes": "max_bytes",
    "decode_memory_bytes": "memory_bytes",
    "decode_deadline": "deadline_s",
    "store_deadline": "store_s",
}
"""Settings that `mats_core.audio.decode.DecodeLimits` calls otherwise."""


def make_decoder(workers: int, sample_rate: int, limits: LimitSettings) -> Any:
    """A `mats_core.audio.sandbox.IsolatedDecoder` with the user's limits over its defaults."""
    from mats_core.audio.decode import DecodeLimits
    from mats_core.audio.sandbox import IsolatedDecoder

    given = limits.model_dump(include=set(LimitSettings.model_fields) - {*INPUT_NAMES}, exclude_none=True)
    chosen = DecodeLimits(**{LIMIT_NAMES.get(name, name): value for name, value in given.items()})
    return IsolatedDecoder(workers=workers, sample_rate=sample_rate, limits=chosen)


def chunk_id(path: str, version: str, start_s: float, end_s: float | None = None, channel: int | None = None) -> str:
    """Hash of (path relative to the input root, version, start): the same wherever the root lies. end_s: of the
    stretch that a list means, where it does not mean all to the end of the file. channel: the only one that it
    means."""
    told = [path, version, round(start_s, 3)]
    if end_s is not None or channel is not None:  # note: without both, an id is what it was before there were any
        told.append(None if end_s is None else round(end_s, 3))
    if channel is not None:
        told.append(channel)
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Rowing:
    """What a row is: a minute, a file, or a window of `window_s` seconds, at `sample_rate`."""

    per: str = "minute"
    window_s: float = 0.0
    sample_rate: int = 0

    def starts(
        self, duration_s: float | None, chunk_s: float, start_s: float = 0.0, end_s: float | None = None
    ) -> list[tuple[float, float | None]]:
        """(start, length) in seconds of the rows of a stretch of sound, as `windows.stretch_starts` has them of chunks
        of `chunk_s`."""
        from mats_core.audio.windows import MOST_CUT_S, stretch_starts

        chunks = stretch_starts(duration_s, chunk_s, start_s, end_s)
        at, length = chunks[-1]
        if self.per == "minute":
            return chunks
        if self.per == "file":
            return [(start_s, None if length is None else at + length - start_s)]
        rest = duration_s - at if length is None and duration_s is not None else length
        if rest is None or rest > MOST_CUT_S:
            return chunks
        cut = [(begin + start, own) for begin, long in chunks for start, own in self.windows(long or rest)]
        return [*cut[:-1], (cut[-1][0], None if length is None else at + length - cut[-1][0])]

    def windows(self, length_s: float) -> list[tuple[float, float]]:
        """(start, length) of the windows in a chunk."""
        from mats_core.audio.windows import window_starts

        return window_starts(length_s, self.sample_rate, self.window_s)

    def within(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows in a chunk whose manifest row is known, and of which `decoded_s` may be."""
        length = chunk.get("decoded_s") or chunk["duration_s"]
        if self.per != "window" or chunk["error_code"] is not None or not length:
            return [chunk]
        first, cut = chunk["start_s"] or 0.0, self.windows(length)
        return [
            {
                **chunk,
                "chunk_id": chunk_id(chunk["chunk_id"], chunk["version"] or "", first + start),
                "start_s": first + start,
                "duration_s": long,
                "last": bool(chunk["last"]) and start == cut[-1][0],
            }
            for start, long in cut
        ]


def chunk_rows(entry: Entry, info: Any, chunk_s: float, rows: Rowing) -> list[dict[str, Any]]:
    """Manifest rows of one entry from its header (`AudioInfo`), or its one error row (`AudioError`)."""
    known = ("format", "sample_rate", "channels", "duration_source")
    base: dict[str, Any] = {name: getattr(info, name, None) for name in known}
    base.update(uri=storage.public_uri(entry.uri), size_bytes=entry.size, version=entry.version)
    base["size_bytes"] = entry.size or getattr(info, "size_bytes", 0)
    chunks: list[tuple[float, float | None]] = [(entry.start_s, None)]
    to_end = entry.end_s is None
    code, message = getattr(info, "code", None), str(getattr(info, "message", "") or info)
    length = getattr(info, "duration_s", None)
    if code is None and length is not None and 0 < length <= entry.start_s:
        code, message = "empty_audio", f"begins at {entry.start_s:g} s, and the file ends at {length:.1f} s"
    if code is not None:
        base.update(duration_source="unknown", error_code=code, error_message=message)
    else:
        base.update(error_code=None, error_message=None)
        chunks = rows.starts(length, chunk_s, entry.start_s, entry.end_s)
        at, own = chunks[-1]
        to_end = own is None
        if to_end and length is not None:
            chunks[-1] = (at, max(0.0, length - at))
    return [
        {
            **base,
            "chunk_id": chunk_id(entry.path, entry.version, start, entry.end_s, entry.own.get(CHANNEL)),
            "start_s": start,
            "duration_s": duration,
            "last": start == chunks[-1][0] and to_end,
        }
        for start, duration in chunks
    ]


def no_audio(uri: str) -> SettingsError:
    """The refusal of an INPUT without a single entry."""
    problem = f"there is no audio file in {storage.public_uri(uri)}"
    return SettingsError("input", problem, "choose a file, a folder or a list that has some")


class Scanner:
    """Turns entries into manifest rows; headers are read PROBE_BATCH files at a time, by processes with limits.

    chunk_s: seconds of a chunk; workers: processes (default: chosen); rows: what a row is. A context manager: they end
    with it.
    """

    def __init__(
        self, chunk_s: float, limits: LimitSettings, workers: int | None = None, rows: Rowing | None = None
    ) -> None:
        self.chunk_s, self._limits, self._workers, self._rows = chunk_s, limits, workers, rows or Rowing()
        self._decoder: Any = None

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder is not None:
            self._decoder.close()

    def read_headers(self, uris: list[str]) -> list[Any]:
        """An `AudioInfo` or `AudioError` of each file, in order; the processes start with the first call."""
        if self._decoder is None:
            far = storage.scheme(uris[0]) != "" and len(uris) > PROBE_BATCH // 8
            workers = self._workers or (STORE_WORKERS if far else max(1, min(2, os.cpu_count() or 1)))
            self._decoder = make_decoder(workers, 16_000, self._limits)
        return list(self._decoder.probe_many(uris))

    def rows(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
        """(entry, its manifest rows), in order."""
        from mats_core.audio.file import AudioError

        entries = iter(entries)
        while batch := list(islice(entries, PROBE_BATCH)):
            ask = [entry.uri for entry in batch if entry.chunk is None and entry.error is None]
            infos = iter(self.read_headers(ask) if ask else [])
            for entry in batch:
                if entry.chunk is not None:
                    yield entry, self._rows.within(entry.chunk)
                else:
                    info = next(infos) if entry.error is None else AudioError(*entry.error)
                    yield entry, chunk_rows(entry, info, self.chunk_s, self._rows)


@dataclass
class ScanCounts:
    """What a scan found: entries, their rows, bytes and seconds of audio; how many of each format and error code, and
    how many files it left out for each ending (of all of INPUT)."""

    files: int = 0
    chunks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    formats: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Count one entry's rows."""
        self.files += 1
        self.chunks += len(rows)
        self.bytes += rows[0].get("size_bytes") or 0
        self.seconds += sum(row.get("duration_s") or 0.0 for row in rows)
        for name, counts in (("format", self.formats), ("error_code", self.errors)):
            if value := rows[0].get(name):
                counts[value] += 1


def decoders_worth(workers: int, spent_s: float, cpu_s: float, most: int) -> int:
    """How many processes are to decode what comes from a store, so that some decode while others wait for it.

    spent_s: what `workers` of them took for a table; cpu_s: the time that all together were at work in it.
    """
    busy = cpu_s / max(1e-9, spent_s * workers)
    return max(workers, min(most, round(workers / max(0.01, busy))))
