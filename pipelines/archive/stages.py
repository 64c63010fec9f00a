"""The stages with the model: rows with sound → answers, or audio embeddings. Those before it: `decode_stage`.

    rows of the work list ──DecodeStage──▶ rows + pcm ───────┬──AnswerStage──▶ answers
                          └─FetchStage───▶ rows + windows ──┘  EmbedStage ──▶ audio embeddings

Clips are embedded and asked as everywhere else (`mats_core.model.asking`). An exception about one row costs that row
alone, where Ray would give up its whole table.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mats_core.audio.levels import Levels
from mats_core.errors import SettingsError, first_line
from pipelines.archive.decode_stage import ERROR, LEVELS, SOUND
from pipelines.archive.model_spec import ModelSpec
from pipelines.cluster.plan import MODEL_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data.schemas import (
    REQUEST_COLUMNS,
    dropped_columns,
    output_columns,
    timed,
    with_column,
    with_output,
)

if TYPE_CHECKING:
    import torch

    from mats_core.model.hearing.clips import Clip

WINDOW_BATCH = 64
"""Windows the encoder takes at once."""
HANDED_ON = ("row_id", "last", *SOUND)
"""Output columns that rows have when they come to the model."""


class ModelStage:
    """What EmbedStage and AnswerStage share: the loaded model, rows → clips, and rows of the OUTPUT of their `JOB`.

    loaded: another such stage, whose model is this one's too.
    """

    JOB, EMPTY = "", dict[str, Any]()

    def __init__(self, context: StageContext, spec: ModelSpec, loaded: ModelStage | None = None) -> None:
        if loaded is not None:
            vars(self).update(vars(loaded))
            return
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
        from mats_core.model.hearing.clips import Clip, embed_clips

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
        from mats_core.model.hearing.clips import Clip

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
