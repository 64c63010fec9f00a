"""The front of a run: a shard of the work list → its rows with sound, or with embeddings stored before.

Audio travels as int16 mono at the encoder's rate.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from pipelines.archive.work_list import WorkList
from pipelines.data import parquet
from pipelines.data.embeddings import FOLDER
from pipelines.data.private_uris import FindUris
from pipelines.data.schemas import WINDOWS_TYPE, timed, with_column
from pipelines.settings.archive import LimitSettings

BLOCK_ROWS = 32
"""Rows whose sound is in memory at once: a shard of a large archive has hundreds, and a row may be a minute."""


def make_decoder(workers: int, sample_rate: int, limits: LimitSettings) -> Any:
    """A `mats_core.audio.sandbox.IsolatedDecoder` with the user's limits over its defaults."""
    from mats_core.audio.decode import DecodeLimits
    from mats_core.audio.sandbox import IsolatedDecoder

    given = {
        "max_bytes": limits.max_file_bytes,
        "max_seconds": limits.max_seconds,
        "memory_bytes": limits.decode_memory_bytes,
        "deadline_s": limits.decode_deadline,
        "store_s": limits.store_deadline,
        "max_sample_rate": limits.max_sample_rate,
        "min_sample_rate": limits.min_sample_rate,
        "max_channels": limits.max_channels,
    }
    chosen = DecodeLimits(**{name: value for name, value in given.items() if value is not None})
    return IsolatedDecoder(workers=workers, sample_rate=sample_rate, limits=chosen)


def open_shard(work: WorkList, shard: dict[str, Any]) -> pa.Table:
    """The unfinished rows first … stop-1 of the work list; mask: packed bits, 1 is finished."""
    table = work.read(shard["first"], shard["stop"])
    finished = np.unpackbits(np.frombuffer(shard["mask"], np.uint8), count=len(table)).astype(bool)
    return table.filter(pa.array(~finished)) if finished.any() else table


def shard_table(first: int, stop: int, mask: np.ndarray) -> pa.Table:
    """One shard as the row that Ray sends to a decoding actor. mask: bool [stop-first], True is finished."""
    packed = np.packbits(mask).tobytes()
    return pa.table({"first": [first], "stop": [stop], "mask": pa.array([packed], pa.binary())})


class Decode:
    """Shard → its rows with `pcm` (int16 little-endian bytes, null where there is none) and `decoded_s`."""

    def __init__(
        self,
        work_uri: str,
        workers: int,
        sample_rate: int,
        limits: LimitSettings,
        private: FindUris | None = None,
        again: Collection[str] = (),
    ) -> None:
        """private: finds the URIs that the work list holds without their secrets. again: codes that the scan found and
        that are given another try; such a file is one row, however long it is."""
        self._work = WorkList(work_uri)
        self._private, self._again = private, frozenset(again)
        self._decoder = make_decoder(workers, sample_rate, limits)

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.to_pylist():
            rows = open_shard(self._work, shard)
            for at in range(0, len(rows), BLOCK_ROWS):
                yield self.decode(rows.slice(at, BLOCK_ROWS))

    def decode(self, rows: pa.Table) -> pa.Table:
        """`rows` with pcm and decoded_s; errors of decoding in error_code and error_message."""
        from mats_core.audio.decode import AudioError
        from mats_core.audio.sandbox import DecodeRequest

        started, cpu_before = time.monotonic(), self._decoder.cpu_s
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        for index, code in enumerate(codes):
            if code in self._again:
                codes[index] = messages[index] = None
        asked = [index for index, code in enumerate(codes) if code is None]
        uris, starts = self._whole_uris(rows), rows["start_s"].to_pylist()
        durations, last = rows["duration_s"].to_pylist(), rows["last"].to_pylist()
        sizes, versions = rows["size_bytes"].to_pylist(), rows["version"].to_pylist()
        requests = [
            # the last chunk reads to the end of the file, whatever the header said
            DecodeRequest(
                uris[i], starts[i] or 0.0, None if last[i] else durations[i], sizes[i] or 0, versions[i] or ""
            )
            for i in asked
        ]
        pcm: list[Any] = [None] * len(codes)
        seconds = [0.0] * len(codes)
        for index, result in zip(asked, self._decoder.decode_many(requests) if requests else [], strict=True):
            if isinstance(result, AudioError):
                if result.code == "empty_audio" and (starts[index] or 0.0) > 0:
                    continue  # the header promised more than there is: not an error, nothing to say
                codes[index], messages[index] = result.code, result.message
            else:
                pcm[index] = result.samples.astype("<i2", copy=False).tobytes()
                seconds[index] = float(result.decoded_s)
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        rows = with_column(rows, "decoded_s", seconds, pa.float64())
        rows = with_column(rows, "pcm", pa.array(pcm, pa.large_binary()), pa.large_binary())
        cpu_s = self._decoder.cpu_s - cpu_before
        return timed(rows, decode_s=time.monotonic() - started, decode_cpu_s=cpu_s, decoded_at=time.time())

    def _whole_uris(self, rows: pa.Table) -> list[str]:
        uris: list[str] = rows["uri"].to_pylist()
        if self._private is None:
            return uris
        entry_ids = rows["entry_id"].to_pylist()
        private = self._private(entry_ids)
        return [private.get(entry_id, uri) for entry_id, uri in zip(entry_ids, uris, strict=True)]


class Fetch:
    """Shard → its rows with `windows` and `decoded_s` out of an audio-embeddings data set."""

    def __init__(self, work_uri: str, embeddings_uri: str) -> None:
        self._work = WorkList(work_uri)
        self._embeddings = embeddings_uri
        self._cached: tuple[str, pa.Table] | None = None

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.to_pylist():
            yield self.fetch(open_shard(self._work, shard))

    def fetch(self, rows: pa.Table) -> pa.Table:
        """`rows` with the windows stored for them."""
        started = time.monotonic()
        windows, seconds = [], []
        for part, at in zip(rows["part"].to_pylist(), rows["part_row"].to_pylist(), strict=True):
            if self._cached is None or self._cached[0] != part:
                uri = storage.join(self._embeddings, FOLDER, part)
                self._cached = (part, parquet.read(uri, ["windows", "decoded_s"]))
            windows.append(self._cached[1]["windows"][at].as_py())
            seconds.append(self._cached[1]["decoded_s"][at].as_py())
        rows = with_column(rows, "decoded_s", seconds, pa.float64())
        rows = with_column(rows, "windows", windows, WINDOWS_TYPE)
        return timed(rows, decode_s=time.monotonic() - started, decoded_at=time.time())
