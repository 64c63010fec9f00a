"""Archive → manifest: one row a chunk, read from headers in limited processes, as a stream.

`Scanner` serves `mats scan` and the work list of `mats caption` alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mats_core import storage
from mats_core.errors import got_allowed
from pipelines.data.inputs import MANIFEST_SIDECAR, Entry, open_input
from pipelines.settings.archive import LimitSettings, ScanSettings

PROBE_BATCH = 256
"""Files whose headers are asked for at once."""
STORE_WORKERS = 4 * (os.cpu_count() or 1)
"""Processes that read headers from a store: there they mostly wait for it (36 ms a file, 6 of them work)."""


def chunk_id(path: str, version: str, start_s: float) -> str:
    """Hash of (path relative to the input root, version, start): the same wherever the root lies."""
    text = json.dumps([path, version, round(start_s, 3)]).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def chunk_rows(entry: Entry, info: Any, chunk_s: float) -> list[dict[str, Any]]:
    """Manifest rows of one entry from its header (`AudioInfo`), or its one error row (`AudioError`)."""
    from mats_core.audio.decode import chunk_starts

    base: dict[str, Any] = {
        "uri": storage.public_uri(entry.uri),
        "size_bytes": entry.size,
        "version": entry.version,
        "format": None,
        "sample_rate": None,
        "channels": None,
        "duration_source": "unknown",
        "error_code": None,
        "error_message": None,
    }
    code = getattr(info, "code", None)
    if code is not None:
        base.update(error_code=code, error_message=str(getattr(info, "message", "") or info))
        chunks: list[tuple[float, float | None]] = [(0.0, None)]
    else:
        base.update(
            format=info.format,
            sample_rate=info.sample_rate,
            channels=info.channels,
            duration_source=info.duration_source,
        )
        chunks = chunk_starts(info.duration_s, chunk_s)
        if info.duration_s is not None:
            chunks[-1] = (chunks[-1][0], info.duration_s - chunks[-1][0])
    return [
        {
            **base,
            "chunk_id": chunk_id(entry.path, entry.version, start),
            "start_s": start,
            "duration_s": duration,
            "last": start == chunks[-1][0],
        }
        for start, duration in chunks
    ]


class Scanner:
    """Turns entries into manifest rows; headers are read by limited processes, a batch at a time."""

    def __init__(self, chunk_s: float, limits: LimitSettings, workers: int | None = None) -> None:
        self.chunk_s = chunk_s
        self._limits = limits
        self._workers = workers
        self._decoder: Any = None

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder is not None:
            self._decoder.close()

    def _probe(self, uris: list[str]) -> list[Any]:
        if self._decoder is None:
            from pipelines.archive.decode_stage import make_decoder

            far = storage.scheme(uris[0]) != "" and len(uris) > PROBE_BATCH // 8
            workers = self._workers or (STORE_WORKERS if far else max(1, min(2, os.cpu_count() or 1)))
            self._decoder = make_decoder(workers, 16_000, self._limits)
        return list(self._decoder.probe_many(uris))

    def rows(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
        """(entry, its manifest rows), in order."""
        from mats_core.audio.decode import AudioError

        waiting: list[Entry] = []
        for entry in entries:
            waiting.append(entry)
            if len(waiting) == PROBE_BATCH:
                yield from self._flush(waiting, AudioError)
                waiting = []
        yield from self._flush(waiting, AudioError)

    def _flush(self, batch: list[Entry], error_type: Any) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
        ask = [entry.uri for entry in batch if entry.chunk is None and entry.error is None]
        infos = iter(self._probe(ask) if ask else [])
        for entry in batch:
            if entry.chunk is not None:
                yield entry, [entry.chunk]
            elif entry.error is not None:
                yield entry, chunk_rows(entry, error_type(*entry.error), self.chunk_s)
            else:
                yield entry, chunk_rows(entry, next(infos), self.chunk_s)


@dataclass
class ScanCounts:
    """What was seen: files, chunks, bytes, hours, formats, errors by code."""

    files: int = 0
    chunks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    formats: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Count one entry's rows."""
        self.files += 1
        self.chunks += len(rows)
        self.bytes += rows[0].get("size_bytes") or 0
        self.seconds += sum(row.get("duration_s") or 0.0 for row in rows)
        for name, counts in (("format", self.formats), ("error_code", self.errors)):
            value = rows[0].get(name)
            if value:
                counts[value] = counts.get(value, 0) + 1


@dataclass
class ScanResult:
    """What `mats scan` did: `added` this time, and where the manifest lies."""

    manifest: str
    added: ScanCounts
    known_files: int
    total_rows: int
    wall_s: float = 0.0


def run_scan(settings: ScanSettings, progress: Callable[[ScanCounts], None] | None = None) -> ScanResult:
    """Write (or complete) the manifest data set at `settings.output`; raises SettingsError."""
    from mats_core.model.facts import read_model_facts
    from pipelines.archive.work_list import WorkList
    from pipelines.output.folder import open_output

    started = time.monotonic()
    facts = read_model_facts(settings.model)
    source = open_input(settings.input, settings.schemes)
    if source.kind in ("manifest", "embeddings"):
        raise got_allowed("input", f"a folder of {source.kind}", "audio files or a list of them")
    identity = {"job": "scan", "chunk_seconds": facts.chunk_s}
    with open_output(settings.output, identity, results="manifest", overwrite=settings.overwrite) as out:
        rows = WorkList(out.join("manifest"), source.own_schema, manifest_only=True)
        with Scanner(facts.chunk_s, settings, settings.decoders) as scanner:
            added, known = rows.extend(source, scanner, {}, progress)
        if rows.total == 0:
            out.forget()
            raise got_allowed("input", storage.public_uri(settings.input), "a place with audio files in it")
        out.check()
        told = {
            "rows": rows.total,
            "chunk_seconds": facts.chunk_s,
            "input": storage.public_uri(settings.input),
        }
        storage.write_bytes(out.join(MANIFEST_SIDECAR), json.dumps(told, indent=1).encode())
        return ScanResult(settings.output, added, known, rows.total, time.monotonic() - started)
