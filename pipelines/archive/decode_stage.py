"""The stages that a run begins with: shards of the work list → rows with their sound, or with stored embeddings.

shards ──DecodeStage──▶ rows + pcm, or ──FetchStage──▶ rows + windows
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from mats_core import storage
from mats_core.model.hearing.grouping import has_tail
from mats_core.storage.uris import archive_of
from pipelines.archive.headers import decoders_worth, make_decoder
from pipelines.archive.work_list import WorkList
from pipelines.cluster.plan import DECODER_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data import parquet
from pipelines.data.embeddings import FOLDER
from pipelines.data.schemas import WINDOWS_TYPE, timed, with_column
from pipelines.settings.archive import LimitSettings, RunSettings

BLOCK_ROWS = 32
"""Rows whose sound is in memory at once: a shard of a large archive has hundreds, and a row may be a minute."""
STORE_DECODERS = 4
"""Decoders become at most so many times as many where files come from a store and they mostly wait for it."""
LEVELS = ("peak_dbfs", "rms_dbfs", "clipped")
SOUND = {
    "decoded_s": pa.float64(),
    "complete": pa.bool_(),
    "lost_s": pa.float64(),
    **dict.fromkeys(LEVELS, pa.float64()),
}
"""What is told of a row's sound: seconds that were decoded, whether that is all, seconds that are lost, its levels."""
ERROR = ("error_code", "error_message")
CHUNK = ("uri", "size_bytes", "version", "start_s", "duration_s", "last", *ERROR)
"""What a decoder must know of a row."""


class ShardStage:
    """What stages that begin a run share: a shard of the work list → its unfinished rows, BLOCK_ROWS at a time."""

    def __init__(self, context: StageContext) -> None:
        self._work = WorkList(context.work_list)

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.to_pylist():
            rows = self._work.unfinished(shard)
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
        self._most_workers = STORE_DECODERS * context.decoder_workers
        self._decoder = make_decoder(context.decoder_workers, sample_rate, limits)

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` with their sound, and with errors of decoding in error_code and error_message.

        pcm: int16 samples as little-endian bytes, mono at the encoder's rate, null where there are none; decoded_s:
        seconds of them; complete: false where the file broke off or is damaged within the row, or ends before it (then
        error_message says where); lost_s: seconds that could not be decoded; the levels of `Levels`; all null where
        nothing was decoded. Where channels cancel each other out, error_message says so.
        """
        from mats_core.audio.file import AudioError
        from mats_core.audio.sandbox import DecodeRequest

        started, cpu_before, workers = time.monotonic(), self._decoder.cpu_s, self._decoder.workers
        nothing = {**dict.fromkeys(SOUND), "pcm": None, "decoded_s": 0.0}
        found = [{**row, **nothing} for row in rows.select(CHUNK).to_pylist()]
        for row in found:
            if row["error_code"] in self._retried:
                row["error_code"] = row["error_message"] = None
        uris = self.uris_to_read(rows)
        asked = [index for index, row in enumerate(found) if row["error_code"] is None]
        requests = []
        for index in asked:
            row = found[index]
            start_s, size = row["start_s"] or 0.0, row["size_bytes"] or 0
            # the last chunk reads to the end of the file, whatever the header said
            duration_s = None if row["last"] else row["duration_s"]
            channel = rows["only_channel"][index].as_py() if "only_channel" in rows.schema.names else None
            requests.append(DecodeRequest(uris[index], start_s, duration_s, size, row["version"] or "", channel))
        for index, result in zip(asked, self._decoder.decode_many(requests) if requests else [], strict=True):
            row = found[index]
            if not isinstance(result, AudioError):
                row["pcm"] = memoryview(result.samples.astype("<i2", copy=False)).cast("B")
                row.update(decoded_s=float(result.decoded_s), complete=result.complete, lost_s=result.lost_s)
                levels = {name: getattr(result.levels, name) for name in LEVELS}
                row.update(levels, error_message=result.remark or None)
                if row["start_s"] and not len(result.samples):  # the header promised more than there is
                    row["complete"], row["error_message"] = False, past_the_end(row["start_s"], result.end_s)
            elif result.code != "empty_audio" or not row["start_s"]:
                row["error_code"], row["error_message"] = result.code, result.message
            else:
                row["complete"], row["error_message"] = False, past_the_end(row["start_s"], None)
        kinds = {name: pa.string() for name in ERROR} | SOUND | {"pcm": pa.large_binary()}
        for name, kind in kinds.items():
            rows = with_column(rows, name, [row[name] for row in found], kind)
        cpu_s, spent_s = self._decoder.cpu_s - cpu_before, time.monotonic() - started
        if len(requests) >= workers and storage.scheme(archive_of(requests[0].uri)):
            self._decoder.workers = decoders_worth(workers, spent_s, cpu_s, self._most_workers)
        return timed(rows, decode_s=spent_s, decode_cpu_s=cpu_s, decoded_at=time.time())

    def uris_to_read(self, rows: pa.Table) -> list[str]:
        """URIs to read, with the secrets that the work list does not hold."""
        uris: list[str] = rows["uri"].to_pylist()
        if self._find_uris is None:
            return uris
        entry_ids = rows["entry_id"].to_pylist()
        private = self._find_uris(entry_ids)
        return [private.get(entry_id, uri) for entry_id, uri in zip(entry_ids, uris, strict=True)]


def past_the_end(start_s: float, end_s: float | None) -> str:
    """What is said of a row that begins behind the end of its file's sound."""
    where = "before it" if end_s is None else f"at {end_s:.1f} s"
    return f"the header promises sound at {start_s:g} s, but the file ends {where}"


def decode_stage(settings: RunSettings, sample_rate: int) -> Stage:
    """Declares the stage that decodes to `sample_rate`, in Hz."""
    limits = LimitSettings(**settings.model_dump(include=set(LimitSettings.model_fields)))
    return Stage(
        name="decode",
        actor=DecodeStage,
        arguments=(sample_rate, limits, tuple(settings.retry_errors or ())),
        reads=("entry_id", *CHUNK),
        writes=("pcm", *SOUND, *ERROR),
        cpus=DECODER_CPUS,
    )


class FetchStage(ShardStage):
    """Reads the windows of rows out of the OUTPUT of an embed-audio run. per: what a row is, a minute or a window."""

    MORE: tuple[str, ...] = ()

    def __init__(self, context: StageContext, embeddings: str, per: str = "minute") -> None:
        super().__init__(context)
        self._embeddings, self._per = embeddings, per
        self._part, self._table = "", pa.table({})

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` with the windows and seconds that are stored for them."""
        started = time.monotonic()
        windows: list[Any] = []
        told: list[dict[str, Any]] = []
        for row in rows.select(("part", "part_row", "start_s", "duration_s", *ERROR)).to_pylist():
            found, sound = self.read(row)
            windows.append(found)
            told.append({**{name: row[name] for name in ERROR}, **sound})
        for name, kind in (SOUND | dict.fromkeys(ERROR, pa.string())).items():
            rows = with_column(rows, name, [each[name] for each in told], kind)
        rows = with_column(rows, "windows", windows, WINDOWS_TYPE)
        return timed(rows, decode_s=time.monotonic() - started, decoded_at=time.time())

    def read(self, row: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The windows of a row of the work list, and what is told of its sound."""
        sound = self.stored(row["part"], row["part_row"])
        windows, start_s = sound.pop("windows") or [], sound.pop("start_s")
        if self._per != "window" or not windows:
            return windows, sound
        offset = (row["start_s"] or 0.0) - (start_s or 0.0)
        at = min(range(len(windows)), key=lambda index: abs(windows[index]["start_s"] - offset))
        # note: as when audio is read: a rest shorter than this belongs to the window before it
        rest = at == len(windows) - 2 and has_tail([each["start_s"] for each in windows])
        stop = len(windows) if rest else at + 1
        whole = bool(sound["complete"]) or None
        sound = {**dict.fromkeys(SOUND), "decoded_s": row["duration_s"], "complete": whole, "lost_s": whole and 0.0}
        return [{**each, "start_s": each["start_s"] - offset} for each in windows[at:stop]], sound

    def stored(self, part: str, at: int) -> dict[str, Any]:
        """What is stored in a row of a part: windows, start_s, SOUND and MORE, None for what older ones lack."""
        if self._part != part:
            uri = storage.join(self._embeddings, FOLDER, *unquote(part).split("/"))
            newer = [name for name in SOUND if name != "decoded_s"]
            there = ["windows", "decoded_s", "start_s", *self.MORE]
            self._part, self._table = part, parquet.read(uri, there, newer=newer)
        names = self._table.schema.names
        wanted = ("windows", "start_s", *SOUND, *self.MORE)
        return {name: self._table[name][at].as_py() if name in names else None for name in wanted}


def fetch_stage(embeddings: str, per: str = "minute") -> Stage:
    """Declares the stage that reads the audio embeddings of an OUTPUT."""
    reads, writes = ("part", "part_row", "start_s", "duration_s", *ERROR), ("windows", *SOUND, *ERROR)
    return Stage("fetch", FetchStage, (embeddings, per), reads, writes, cpus=DECODER_CPUS)
