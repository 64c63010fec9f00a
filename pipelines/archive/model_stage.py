"""The model stage of a run, a block of rows at a time, Arrow in and Arrow out.

    shard (first, stop, mask) ──Decode──▶ rows + pcm ──Answer──▶ answers
                              └─Fetch───▶ rows + windows ──┘└──Embed──▶ audio embeddings

An exception of one row costs that row: Ray would throw away its whole block. Decode and Fetch are in decode.py.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mats_core.errors import SettingsError
from pipelines.data.columns import NEIGHBORS_TYPE, SEGMENTS_TYPE, WINDOWS_TYPE, timed, with_column

if TYPE_CHECKING:
    from mats_core.model.asking import Clip

WINDOW_BATCH = 64
"""Windows the encoder takes at once."""

WORK_ONLY = ("entry_id", "last", "part", "part_row")
"""Columns of the work list that end with it."""


@dataclass
class ModelSpec:
    """What a model actor must know; plain data, sent to every actor."""

    model: str
    device: str = "auto"
    trust_remote_code: bool = False
    window_s: float = 0.0
    threads: int = 0
    batch_size: int = 16
    deterministic: bool = False
    segments: bool = False
    explain: bool = False
    with_embedding: bool = False
    decoding: dict[str, Any] = field(default_factory=dict)
    santa: dict[str, Any] = field(default_factory=dict)
    bridge: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    fingerprint: str = ""


class ModelStage:
    """What Embed and Answer share: the loaded model, audio → window embeddings, the row-by-row fallback."""

    def __init__(self, spec: ModelSpec) -> None:
        if spec.threads:
            os.environ["OMP_NUM_THREADS"] = str(spec.threads)
            import torch

            torch.set_num_threads(spec.threads)
        from mats_core import load_model

        self.spec = spec
        self._wrong: SettingsError | None = None
        try:
            self.model = load_model(spec.model, device=spec.device, trust_remote_code=spec.trust_remote_code)
        except SettingsError as error:  # note: of an actor that fails to start Ray tells a text; of a task, the error
            self._wrong = error
        self.ready_at = time.time()

    def clips(self, rows: pa.Table) -> list[Clip | Exception | None]:
        """A Clip a row, or the exception its sound ended with; None where there is no sound to embed (an error, or past
        the end of the file).

        Raises SettingsError when the model could not be loaded.
        """
        if self._wrong is not None:
            raise self._wrong
        starts = [start or 0.0 for start in rows["start_s"].to_pylist()]
        if "windows" in rows.schema.names:
            stored = zip(rows["windows"].to_pylist(), starts, strict=True)
            return [self._stored_clip(windows, start) if windows else None for windows, start in stored]
        from mats_core.model.asking import embed_clips

        sounds = {
            index: (starts[index], np.frombuffer(value.as_buffer(), "<i2"))
            for index, value in enumerate(rows["pcm"])
            if value.is_valid and value.as_buffer().size
        }
        size = 1 if self.spec.deterministic else WINDOW_BATCH
        found = dict(zip(sounds, embed_clips(self.model, list(sounds.values()), size), strict=True))
        return [found.get(index) for index in range(len(rows))]

    def _stored_clip(self, windows: list[dict[str, Any]], start_s: float) -> Clip:
        """A row of stored audio embeddings as the model's encoder gave it."""
        from mats_core.model.asking import Clip

        weights = np.array([window["weight"] for window in windows], np.float32)
        return Clip(
            np.array([window["embedding"] for window in windows], np.float32),
            weights,
            np.array([window["start_s"] for window in windows]),
            float(sum(window["weight"] for window in windows)),
            self.spec.window_s,
            start_s,
        )


def _model_error(error: Exception) -> tuple[str, str]:
    first = (str(error).splitlines() or [""])[0]
    return "model_error", f"the model failed on this row: {type(error).__name__}: {first}"[:500]


class Embed(ModelStage):
    """Rows + pcm → audio embeddings: the manifest's columns and `windows`."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        values: list[Any] = []
        for index, clip in enumerate(self.clips(rows)):
            if clip is None or isinstance(clip, Exception):
                values.append([])
                if clip is not None:
                    codes[index], messages[index] = _model_error(clip)
                continue
            values.append(
                [
                    {"start_s": start, "weight": weight, "embedding": vector}
                    for start, weight, vector in zip(clip.starts, clip.weights, clip.embeddings, strict=True)
                ]
            )
        rows = rows.drop_columns([n for n in ("pcm", "entry_id", "part", "part_row") if n in rows.schema.names])
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        rows = with_column(rows, "windows", values, WINDOWS_TYPE)
        rows = with_column(rows, "run_id", [self.spec.run_id] * len(rows), pa.string())
        return timed(rows, embed_s=time.monotonic() - started, began_at=began, ready_at=self.ready_at)


class Answer(ModelStage):
    """Rows + pcm or windows → answers."""

    _bridge: Any = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        clips = self.clips(rows)
        embedded = time.monotonic()
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        asked: dict[int, Clip] = {}
        for index, clip in enumerate(clips):
            if isinstance(clip, Exception) and codes[index] is None:
                codes[index], messages[index] = _model_error(clip)
            elif clip is not None and not isinstance(clip, Exception) and codes[index] is None:
                asked[index] = clip
        size = 1 if self.spec.deterministic else self.spec.batch_size
        found = dict(zip(asked, self._ask(rows, asked, size), strict=True))
        for index, answer in found.items():
            if isinstance(answer, Exception):
                codes[index], messages[index] = _model_error(answer)
        answers = {index: answer for index, answer in found.items() if not isinstance(answer, Exception)}
        places = range(len(codes))
        texts = [answers[i].text if i in answers else "" if codes[i] is None else None for i in places]
        segments: list[Any] = [[] if self.spec.segments and code is None else None for code in codes]
        for index, answer in answers.items():
            if answer.segments is not None:
                segments[index] = [vars(segment) for segment in answer.segments]
        pooled = [answers[i].embedding if i in answers else None for i in places]
        neighbors = [answers[i].neighbors if i in answers else None for i in places]
        jobs = sum(1 + len(clip.embeddings) if self.spec.segments else 1 for clip in asked.values())
        rows = rows.drop_columns([n for n in ("pcm", "windows", *WORK_ONLY) if n in rows.schema.names])
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        rows = with_column(rows, "text", texts, pa.string())
        rows = with_column(rows, "segments", segments, SEGMENTS_TYPE)
        rows = with_column(rows, "model_fingerprint", [self.spec.fingerprint] * len(rows), pa.string())
        rows = with_column(rows, "run_id", [self.spec.run_id] * len(rows), pa.string())
        if self.spec.with_embedding:
            rows = with_column(rows, "embedding", pooled, pa.list_(pa.float32()))
        if self.spec.explain:
            rows = with_column(rows, "neighbors", [_plain(n) for n in neighbors], NEIGHBORS_TYPE)
        return timed(
            rows,
            embed_s=embedded - started,
            answer_s=time.monotonic() - embedded,
            tokens=float(sum(answer.tokens for answer in answers.values())),
            asked=float(jobs),
            places=float(math.ceil(jobs / size) * size),
            began_at=began,
            ready_at=self.ready_at,
        )

    def _ask(self, rows: pa.Table, clips: dict[int, Clip], size: int) -> list[Any]:
        """The answers to the requests of these rows, or the exception that the model ended with."""
        from mats_core.memory.bridges import Bridge, BridgeSettings
        from mats_core.model.asking import Request, ask_clips
        from mats_core.model.config import SantaSettings

        columns = {name: rows[name].to_pylist() for name in ("task", "question", "tag")}
        requests = [Request(**{name: values[index] for name, values in columns.items()}) for index in clips]
        if self._bridge is None:
            self._bridge = Bridge(BridgeSettings(**self.spec.bridge), self.model.memory)
        return ask_clips(
            self.model,
            list(clips.values()),
            requests,
            segments=self.spec.segments,
            decoding=self.spec.decoding or None,
            santa=SantaSettings(**self.spec.santa) if self.spec.santa else None,
            bridge=self._bridge,
            explain=self.spec.explain,
            batch_size=size,
        )


def _plain(neighbors: Any) -> list[dict[str, Any]] | None:
    """Santa's neighbours as plain rows for Parquet."""
    if neighbors is None:
        return None
    names = ("row", "caption", "source", "weight", "score")
    return [
        {name: (each.get(name) if isinstance(each, dict) else getattr(each, name, None)) for name in names}
        for each in neighbors
    ]
