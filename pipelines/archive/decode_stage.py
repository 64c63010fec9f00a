"""The first stage of a run: a shard of the work list → its rows with their sound, or with embeddings stored before."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from mats_core import storage
from pipelines.archive.headers import make_decoder
from pipelines.archive.work_list import WorkList, open_shard
from pipelines.cluster.plan import DECODER_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data import parquet
from pipelines.data.embeddings import FOLDER
from pipelines.data.schemas import WINDOWS_TYPE, timed, with_column
from pipelines.settings.archive import LimitSettings, RunSettings

BLOCK_ROWS = 32
"""Rows whose sound is in memory at once: a shard of a large archive has hundreds, and a row may be a minute."""


class ShardStage:
    """What stages that begin a run share: a shard of the work list → its unfinished rows, BLOCK_ROWS at a time."""

    def __init__(self, context: StageContext) -> None:
        self._work = WorkList(context.work_list)

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.to_pylist():
            rows = open_shard(self._work, shard)
            for at in range(0, len(rows), BLOCK_ROWS):
                yield self.load(rows.slice(at, BLOCK_ROWS))

    def load(self, rows: pa.Table) -> pa.Table:
        """Rows of the work list with what the model stage needs of their sound."""
        raise NotImplementedError


class DecodeStage(ShardStage):
    """Decodes the files of rows, in processes with limits.

    retried: error codes of the scan that are given another try; such a file is one row, however long it is.
    """

    def __init__(
        self, context: StageContext, sample_rate: int, limits: LimitSettings, retried: Collection[str] = ()
    ) -> None:
        super().__init__(context)
        self._find_uris, self._retried = context.find_uris, frozenset(retried)
        self._decoder = make_decoder(context.decoder_workers, sample_rate, limits)

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` with their sound, and with errors of decoding in error_code and error_message.

        pcm: int16 samples as little-endian bytes, mono at the encoder's rate, null where there are none; decoded_s:
        seconds of them.
        """
        from mats_core.audio.file import AudioError
        from mats_core.audio.sandbox import DecodeRequest

        started, cpu_before = time.monotonic(), self._decoder.cpu_s
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        for index, code in enumerate(codes):
            if code in self._retried:
                codes[index] = messages[index] = None
        asked = [index for index, code in enumerate(codes) if code is None]
        uris, starts = self.uris_to_read(rows), rows["start_s"].to_pylist()
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

    def uris_to_read(self, rows: pa.Table) -> list[str]:
        """URIs to read, with the secrets that the work list does not hold."""
        uris: list[str] = rows["uri"].to_pylist()
        if self._find_uris is None:
            return uris
        entry_ids = rows["entry_id"].to_pylist()
        private = self._find_uris(entry_ids)
        return [private.get(entry_id, uri) for entry_id, uri in zip(entry_ids, uris, strict=True)]


def decode_stage(settings: RunSettings, sample_rate: int) -> Stage:
    """Declares the stage that decodes to `sample_rate`, in Hz."""
    limits = LimitSettings(**settings.model_dump(include=set(LimitSettings.model_fields)))
    return Stage(
        name="decode",
        actor=DecodeStage,
        arguments=(sample_rate, limits, tuple(settings.retry_errors or ())),
        reads=(
            "entry_id",
            "uri",
            "size_bytes",
            "version",
            "start_s",
            "duration_s",
            "last",
            "error_code",
            "error_message",
        ),
        writes=("pcm", "decoded_s", "error_code", "error_message"),
        cpus=DECODER_CPUS,
    )


class FetchStage(ShardStage):
    """Reads the windows of rows out of the OUTPUT of an embed-audio run."""

    def __init__(self, context: StageContext, embeddings: str) -> None:
        super().__init__(context)
        self._embeddings = embeddings
        self._cached: tuple[str, pa.Table] | None = None

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` with the windows and seconds that are stored for them."""
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


def fetch_stage(embeddings: str) -> Stage:
    """Declares the stage that reads the audio embeddings of an OUTPUT."""
    return Stage(
        name="fetch",
        actor=FetchStage,
        arguments=(embeddings,),
        reads=("part", "part_row"),
        writes=("windows", "decoded_s"),
        cpus=DECODER_CPUS,
    )
