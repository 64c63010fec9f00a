"""The stages of a run: shards of the work list → rows with sound → answers, or audio embeddings.

    rows of the work list ──DecodeStage──▶ rows + pcm ───────┬──AnswerStage──▶ answers
                          └─FetchStage───▶ rows + windows ──┘  EmbedStage ──▶ audio embeddings

Clips are embedded and asked as everywhere else (`mats_core.model.asking`). An exception about one row costs that row
alone, where Ray would give up its whole table.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.audio.levels import Levels
from mats_core.errors import SettingsError, first_line
from pipelines.archive.headers import decoders_worth, make_decoder
from pipelines.archive.model_spec import ModelSpec
from pipelines.archive.work_list import WorkList
from pipelines.cluster.plan import DECODER_CPUS, MODEL_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data import parquet
from pipelines.data.embeddings import FOLDER
from pipelines.data.schemas import (
    REQUEST_COLUMNS,
    WINDOWS_TYPE,
    dropped_columns,
    output_columns,
    timed,
    with_column,
    with_output,
)
from pipelines.settings.archive import LimitSettings, RunSettings

if TYPE_CHECKING:
    import torch

    from mats_core.model.asking import Clip

BLOCK_ROWS = 32
"""Rows whose sound is in memory at once: a shard of a large archive has hundreds, and a row may be a minute."""
WINDOW_BATCH = 64
"""Windows the encoder takes at once."""
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
HANDED_ON = ("row_id", "last", *SOUND)
"""Output columns that rows have when they come to the model."""
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
            requests.append(DecodeRequest(uris[index], start_s, duration_s, size, row["version"] or ""))
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
        if len(requests) >= workers and storage.scheme(requests[0].uri):
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
    """Reads the windows of rows out of the OUTPUT of an embed-audio run."""

    def __init__(self, context: StageContext, embeddings: str) -> None:
        super().__init__(context)
        self._embeddings = embeddings
        self._part, self._table = "", pa.table({})

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` with the windows and seconds that are stored for them."""
        started = time.monotonic()
        windows: list[Any] = []
        told: dict[str, list[Any]] = {name: [] for name in SOUND}
        for part, at in zip(rows["part"].to_pylist(), rows["part_row"].to_pylist(), strict=True):
            if self._part != part:
                uri = storage.join(self._embeddings, FOLDER, part)
                newer = [name for name in SOUND if name != "decoded_s"]
                self._part, self._table = part, parquet.read(uri, ["windows", "decoded_s"], newer=newer)
            windows.append(self._table["windows"][at].as_py())
            for name, values in told.items():
                values.append(self._table[name][at].as_py() if name in self._table.schema.names else None)
        for name, kind in SOUND.items():
            rows = with_column(rows, name, told[name], kind)
        rows = with_column(rows, "windows", windows, WINDOWS_TYPE)
        return timed(rows, decode_s=time.monotonic() - started, decoded_at=time.time())


def fetch_stage(embeddings: str) -> Stage:
    """Declares the stage that reads the audio embeddings of an OUTPUT."""
    reads, writes = ("part", "part_row"), ("windows", *SOUND)
    return Stage("fetch", FetchStage, (embeddings,), reads, writes, cpus=DECODER_CPUS)


class ModelStage:
    """What EmbedStage and AnswerStage share: the loaded model, rows → clips, and rows of the OUTPUT of their `JOB`."""

    JOB, EMPTY = "", dict[str, Any]()

    def __init__(self, context: StageContext, spec: ModelSpec) -> None:
        if context.threads:
            os.environ["OMP_NUM_THREADS"] = str(context.threads)
            import torch

            torch.set_num_threads(context.threads)
        from mats_core.packages import import_transformers

        import_transformers()  # note: before anything that imports it whole
        from mats_core import load_model
        from mats_core.memory.bridges import Bridge, BridgeSettings

        self.spec, self.run_id = spec, context.run_id
        self.slots: int | None = 1 if spec.deterministic else spec.batch_size or context.batch_size
        self._refusal: SettingsError | None = None
        try:
            self.model = load_model(
                spec.model, spec.device, spec.llm_dtype, encoder_dtype=spec.encoder_dtype,
                mapper_dtype=spec.mapper_dtype, trust_remote_code=spec.trust_remote_code, allow_parts=spec.allow_parts,
            )  # fmt: skip
            self.bridge = Bridge(BridgeSettings(**spec.bridge), self.model.memory)
            self._hearing = hearing_stream(self.model.device)
            if self.model.device.type == "cuda" and not spec.deterministic:
                self.slots = spec.batch_size  # None: as many as the LLM's writer has room for
        except SettingsError as error:  # note: of an actor that fails to start Ray tells a text; of a task, the error
            self._refusal = error
        self.ready_at = time.time()

    def clips(self, rows: pa.Table) -> tuple[dict[int, Clip], dict[int, Exception]]:
        """Row → its clip, and row → what the model failed with. Rows without sound (an error, or past the end of their
        file) are in neither.

        Raises SettingsError when the model could not be loaded.
        """
        from mats_core.model.asking import Clip, embed_clips

        if self._refusal is not None:
            raise self._refusal
        starts = [start or 0.0 for start in rows["start_s"].to_pylist()]
        well = [code is None for code in rows["error_code"].to_pylist()]
        if "windows" in rows.schema.names:
            stored = enumerate(zip(rows["windows"].to_pylist(), rows["decoded_s"].to_pylist(), strict=True))
            return {i: self._stored_clip(starts[i], *each) for i, each in stored if each[0] and well[i]}, {}
        sounds = {  # row → start of its chunk in seconds, int16 samples [T]
            index: (starts[index], np.frombuffer(value.as_buffer(), "<i2"))
            for index, value in enumerate(rows["pcm"])
            if well[index] and value.is_valid and value.as_buffer().size
        }
        import torch

        with torch.cuda.stream(self._hearing):
            batch = 1 if self.spec.deterministic else WINDOW_BATCH
            embedded = embed_clips(self.model, list(sounds.values()), batch, self.spec.silence_dbfs)
        found = dict(zip(sounds, embedded, strict=True))
        clips = {index: each for index, each in found.items() if isinstance(each, Clip)}
        return clips, {index: each for index, each in found.items() if isinstance(each, Exception)}

    def _stored_clip(self, start_s: float, windows: list[dict[str, Any]], seconds: float) -> Clip:
        from mats_core.model.asking import Clip

        return Clip(
            np.array([window["embedding"] for window in windows], np.float32),
            np.array([window["weight"] for window in windows], np.float32),
            np.array([window["start_s"] for window in windows]),
            seconds,
            self.spec.window_s,
            start_s,
        )

    def refused(self, rows: pa.Table, reason: str) -> pa.Table:
        """Rows of the OUTPUT for rows that the model is not to be given, for they end it."""
        rows = self.output(rows, [self.EMPTY] * len(rows), dict.fromkeys(range(len(rows)), reason))
        return timed(rows, began_at=time.time(), ready_at=self.ready_at)

    def output(
        self, rows: pa.Table, values: Sequence[dict[str, Any]], failed: Mapping[int, Exception | str]
    ) -> pa.Table:
        """Rows of the OUTPUT.

        values: a dict a row, by column, null for what it lacks; failed: row → what the model ended with on it.
        """
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        for index, error in failed.items():
            reason = error if isinstance(error, str) else type(error).__name__
            if not isinstance(error, str) and str(error):
                reason += f": {first_line(error, 500)}"
            codes[index], messages[index] = "model_error", f"the model failed on this row: {reason}"[:500]
        for name, texts in zip(ERROR, (codes, messages), strict=True):
            rows = with_column(rows, name, texts, pa.string())
        of_all = {"run_id": self.run_id, "model_fingerprint": self.spec.fingerprint}
        names = [each.name for each in output_columns(self.JOB, self.spec) if each.name not in HANDED_ON]
        columns = {name: [{**value, **of_all}.get(name) for value in values] for name in names}
        return with_output(rows, self.JOB, self.spec, columns)


def hearing_stream(device: torch.device) -> torch.cuda.Stream | None:
    """On a GPU, a stream on which sounds are heard beside the LLM's steps for other tables; None on a CPU."""
    import torch

    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)  # weights are there before another stream reads them
    return torch.cuda.Stream(device)


class EmbedStage(ModelStage):
    """Rows with pcm → audio embeddings: the columns of the manifest, and `windows`, empty where there is no sound."""

    JOB, EMPTY = "embed-audio", {"windows": list[Any]()}

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        values: list[dict[str, Any]] = [dict(self.EMPTY) for _ in range(len(rows))]
        clips, failed = self.clips(rows)
        for index, clip in clips.items():
            values[index]["windows"] = [
                {"start_s": start, "weight": weight, "embedding": vector}
                for start, weight, vector in zip(clip.starts, clip.weights, clip.embeddings, strict=True)
            ]
            values[index]["silent"] = clip.silent
        rows = self.output(rows, values, failed)
        return timed(rows, embed_s=time.monotonic() - started, began_at=began, ready_at=self.ready_at)


class AnswerStage(ModelStage):
    """Rows with pcm or windows → answers. An output column holds the field of `Answer` that has its name."""

    JOB = "caption"

    def __call__(self, rows: pa.Table) -> pa.Table:
        from mats_core.model.asking import Answer, Request, ask_clips

        began, started = time.time(), time.monotonic()
        clips, failed = self.clips(rows)
        levels = rows.select(LEVELS).to_pylist()
        known = {at: Levels(**levels[at]) if levels[at]["rms_dbfs"] is not None else None for at in clips}
        clips = {at: replace(clip, levels=known[at]) for at, clip in clips.items()}
        embedded = time.monotonic()
        requests = [Request(**each) for each in rows.select(REQUEST_COLUMNS).to_pylist()]
        answers = ask_clips(
            self.model,
            list(clips.values()),
            [requests[index] for index in clips],
            segments=self.spec.segments,
            decoding=self.spec.decoding or None,
            santa=self.spec.santa or None,
            bridge=self.bridge,
            explain=self.spec.explain,
            answer_silence=self.spec.answer_silence,
            score=self.spec.score,
            rerank=self.spec.rerank,
            batch_size=self.slots,
        )
        values: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        tokens = 0
        for index, answer in zip(clips, answers, strict=True):
            if isinstance(answer, Answer):
                values[index] = {name: _plain(value) for name, value in vars(answer).items()}
                if answer.confidence is not None and answer.confidence < self.spec.min_confidence:
                    values[index] |= {"text": None, "text_unsure": answer.text}
                tokens += answer.tokens
            else:
                failed[index] = answer
        values = [{} if index in failed else value for index, value in enumerate(values)]
        asked = sum(1 + self.spec.segments * len(clip.embeddings) for clip in clips.values())
        slots = self.slots or max(1, asked)
        rows = self.output(rows, values, failed)
        return timed(
            rows,
            embed_s=embedded - started,
            answer_s=time.monotonic() - embedded,
            tokens=float(tokens),
            asked=float(asked),
            places=float(math.ceil(asked / slots) * slots),
            began_at=began, ready_at=self.ready_at,
        )  # fmt: skip


def _plain(value: Any) -> Any:
    """A list of records (segments) as dicts, which Arrow takes; other values as they are."""
    return [vars(each) if is_dataclass(each) else each for each in value] if isinstance(value, list) else value


def embed_stage(spec: ModelSpec) -> Stage:
    """Declares the stage that embeds decoded sound."""
    return _model_stage("embed", EmbedStage, spec, ("pcm",))


def answer_stage(spec: ModelSpec, sound: str = "pcm") -> Stage:
    """Declares the stage that answers; sound: the column that holds it, pcm or windows."""
    return _model_stage("answer", AnswerStage, spec, (sound, *REQUEST_COLUMNS))


def _model_stage(name: str, actor: type[ModelStage], spec: ModelSpec, reads: tuple[str, ...]) -> Stage:
    job = actor.JOB
    columns = [each.name for each in output_columns(job, spec)]
    return Stage(
        name=name,
        actor=actor,
        arguments=(spec,),
        reads=(*reads, "start_s", *ERROR, *(each for each in columns if each in HANDED_ON)),
        writes=(*ERROR, *(each for each in columns if each not in HANDED_ON)),
        drops=dropped_columns(job, spec),
        cpus=MODEL_CPUS,
        gpus=1.0,
        isolated=True,
    )
