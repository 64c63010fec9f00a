"""The stages with the model: tables of rows with sound → tables of answers, or of audio embeddings.

    rows of the work list ──DecodeStage──▶ rows + pcm ───────┬──AnswerStage──▶ answers
                          └─FetchStage───▶ rows + windows ──┘  EmbedStage ──▶ audio embeddings

Clips are embedded and asked as everywhere else (`mats_core.model.asking`). An exception about one row costs that row
alone, where Ray would give up its whole table. DecodeStage and FetchStage are in decode_stage.py.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mats_core.errors import SettingsError, first_line
from pipelines.cluster.plan import MODEL_CPUS
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data.schemas import REQUEST_COLUMNS, dropped_columns, output_columns, timed, with_column, with_output
from pipelines.settings.archive import RunSettings

if TYPE_CHECKING:
    from mats_core.model.asking import Clip
    from mats_core.model.facts import ModelFacts

WINDOW_BATCH = 64
"""Windows the encoder takes at once."""
HANDED_ON = ("row_id", "last", "decoded_s")
"""Output columns that rows have when they come to the model."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model actor must know: plain data, sent to every actor.

    model: its URI; window_s: seconds of its encoder's window; decoding, santa, bridge: settings of an answer, where
    they are not the model's own. The other fields are the settings of the same name.
    """

    model: str
    device: str = "auto"
    trust_remote_code: bool = False
    window_s: float = 0.0
    deterministic: bool = False
    segments: bool = False
    explain: bool = False
    with_embedding: bool = False
    decoding: dict[str, Any] = field(default_factory=dict)
    santa: dict[str, Any] = field(default_factory=dict)
    bridge: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


def model_spec(settings: RunSettings, facts: ModelFacts, **answering: Any) -> ModelSpec:
    """What the actors of a run must know; answering: the settings of an answer, for the stage that asks."""
    names = {each.name for each in fields(ModelSpec)} - set(answering)  # settings of the same name are taken over
    given = settings.model_dump(include=names)
    return ModelSpec(window_s=facts.window_s, fingerprint=facts.fingerprint, **given, **answering)


class ModelStage:
    """What EmbedStage and AnswerStage share: the loaded model, and rows → clips."""

    def __init__(self, context: StageContext, spec: ModelSpec) -> None:
        if context.threads:
            os.environ["OMP_NUM_THREADS"] = str(context.threads)
            import torch

            torch.set_num_threads(context.threads)
        from mats_core import load_model
        from mats_core.memory.bridges import Bridge, BridgeSettings

        self.spec, self.run_id = spec, context.run_id
        self.batch_size = 1 if spec.deterministic else context.batch_size
        self._refusal: SettingsError | None = None
        try:
            self.model = load_model(spec.model, device=spec.device, trust_remote_code=spec.trust_remote_code)
            self.bridge = Bridge(BridgeSettings(**spec.bridge), self.model.memory)
        except SettingsError as error:  # note: of an actor that fails to start Ray tells a text; of a task, the error
            self._refusal = error
        self.ready_at = time.time()

    def clips(self, rows: pa.Table) -> list[Clip | Exception | None]:
        """A clip of each row, or what the model failed with; None where a row has no sound (an error, or past the end
        of its file).

        Raises SettingsError when the model could not be loaded.
        """
        from mats_core.model.asking import embed_clips

        if self._refusal is not None:
            raise self._refusal
        starts = [start or 0.0 for start in rows["start_s"].to_pylist()]
        if "windows" in rows.schema.names:
            return [self._stored_clip(*each) for each in zip(starts, rows["windows"].to_pylist(), strict=True)]
        sounds: dict[int, tuple[float, np.ndarray]] = {}  # row → start of its chunk in seconds, int16 samples [T]
        for index, value in enumerate(rows["pcm"]):
            if value.is_valid and value.as_buffer().size:
                sounds[index] = (starts[index], np.frombuffer(value.as_buffer(), "<i2"))
        found: list[Clip | Exception | None] = [None] * len(rows)
        embedded = embed_clips(self.model, list(sounds.values()), 1 if self.spec.deterministic else WINDOW_BATCH)
        for index, clip in zip(sounds, embedded, strict=True):
            found[index] = clip
        return found

    def _stored_clip(self, start_s: float, windows: list[dict[str, Any]] | None) -> Clip | None:
        from mats_core.model.asking import Clip

        if not windows:
            return None
        return Clip(
            np.array([window["embedding"] for window in windows], np.float32),
            np.array([window["weight"] for window in windows], np.float32),
            np.array([window["start_s"] for window in windows]),
            float(sum(window["weight"] for window in windows)),
            self.spec.window_s,
            start_s,
        )

    def output(
        self, rows: pa.Table, job: str, values: Sequence[dict[str, Any]], failed: dict[int, Exception]
    ) -> pa.Table:
        """Rows of the OUTPUT of `job`.

        values: a dict a row, by column, null for what it lacks; failed: row → the exception that the model ended with.
        """
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        for index, error in failed.items():
            reason = f"{type(error).__name__}: {first_line(error, 500)}" if str(error) else type(error).__name__
            codes[index], messages[index] = "model_error", f"the model failed on this row: {reason}"[:500]
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        of_all = {"run_id": self.run_id, "model_fingerprint": self.spec.fingerprint}
        names = [each.name for each in output_columns(job, self.spec) if each.name not in HANDED_ON]
        return with_output(
            rows, job, self.spec, {name: [{**value, **of_all}.get(name) for value in values] for name in names}
        )


class EmbedStage(ModelStage):
    """Rows with pcm → audio embeddings: the columns of the manifest, and `windows`, empty where there is no sound."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        values: list[dict[str, Any]] = [{"windows": []} for _ in range(len(rows))]
        failed: dict[int, Exception] = {}
        for index, clip in enumerate(self.clips(rows)):
            if isinstance(clip, Exception):
                failed[index] = clip
            elif clip is not None:
                values[index]["windows"] = [
                    {"start_s": start, "weight": weight, "embedding": vector}
                    for start, weight, vector in zip(clip.starts, clip.weights, clip.embeddings, strict=True)
                ]
        rows = self.output(rows, "embed-audio", values, failed)
        return timed(rows, embed_s=time.monotonic() - started, began_at=began, ready_at=self.ready_at)


class AnswerStage(ModelStage):
    """Rows with pcm or windows → answers. An output column holds the field of `Answer` that has its name."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        from mats_core.model.asking import Answer, Request, ask_clips

        began, started = time.time(), time.monotonic()
        failed: dict[int, Exception] = {}
        clips: dict[int, Clip] = {}
        has_error = [code is not None for code in rows["error_code"].to_pylist()]
        for index, clip in enumerate(self.clips(rows)):
            if has_error[index] or clip is None:
                continue
            if isinstance(clip, Exception):
                failed[index] = clip
            else:
                clips[index] = clip
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
            batch_size=self.batch_size,
        )
        past_the_end: dict[str, Any] = {"text": "", "segments": [] if self.spec.segments else None}
        values: list[dict[str, Any]] = [{} if wrong else past_the_end for wrong in has_error]
        tokens = 0
        for index, answer in zip(clips, answers, strict=True):
            if isinstance(answer, Answer):
                values[index] = {name: _plain(value) for name, value in vars(answer).items()}
                tokens += answer.tokens
            else:
                failed[index] = answer
        for index in failed:
            values[index] = {}
        asked = sum(1 + (len(clip.embeddings) if self.spec.segments else 0) for clip in clips.values())
        rows = self.output(rows, "caption", values, failed)
        return timed(
            rows,
            embed_s=embedded - started,
            answer_s=time.monotonic() - embedded,
            tokens=float(tokens),
            asked=float(asked),
            places=float(math.ceil(asked / self.batch_size) * self.batch_size),
            began_at=began,
            ready_at=self.ready_at,
        )


def _plain(value: Any) -> Any:
    """A list of records (segments) as dicts, which Arrow takes; other values as they are."""
    return [vars(each) if is_dataclass(each) else each for each in value] if isinstance(value, list) else value


def embed_stage(spec: ModelSpec) -> Stage:
    """Declares the stage that embeds decoded sound."""
    return _model_stage("embed", EmbedStage, spec, "embed-audio", ("pcm",))


def answer_stage(spec: ModelSpec, sound: str = "pcm") -> Stage:
    """Declares the stage that answers; sound: the column that holds it, pcm or windows."""
    return _model_stage("answer", AnswerStage, spec, "caption", (sound, *REQUEST_COLUMNS))


def _model_stage(name: str, actor: type, spec: ModelSpec, job: str, reads: tuple[str, ...]) -> Stage:
    columns = [each.name for each in output_columns(job, spec)]
    return Stage(
        name=name,
        actor=actor,
        arguments=(spec,),
        reads=(*reads, "start_s", "error_code", "error_message", *(each for each in columns if each in HANDED_ON)),
        writes=("error_code", "error_message", *(each for each in columns if each not in HANDED_ON)),
        drops=dropped_columns(job, spec),
        cpus=MODEL_CPUS,
        gpus=1.0,
    )
