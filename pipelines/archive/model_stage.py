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
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core.errors import SettingsError
from pipelines.data.schemas import timed, with_column, with_output

WINDOW_BATCH = 64
"""Windows the encoder takes at once."""


@dataclass
class Clip:
    """One row inside the model stage: window embeddings [W, D] unit, weights [W], starts [W] in the chunk (s)."""

    embeddings: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    seconds: float = 0.0
    error: tuple[str, str] | None = None


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

    def clips(self, rows: pa.Table) -> list[Clip | None]:
        """A Clip a row; None where there is no sound to embed (an error, or past the end of the file).

        Raises SettingsError when the model could not be loaded.
        """
        if self._wrong is not None:
            raise self._wrong
        if "windows" in rows.schema.names:
            return [_stored_clip(value) for value in rows["windows"].to_pylist()]
        from mats_core.audio.decode import windows

        encoder = self.model.encoder
        rate = encoder.sample_rate
        cuts: list[Any] = []
        sounds: list[np.ndarray] = []
        for value in rows["pcm"]:
            if not value.is_valid or value.as_buffer().size == 0:
                cuts.append(None)
                continue
            samples = np.frombuffer(value.as_buffer(), "<i2")
            cut = windows(len(samples), rate, encoder.window_seconds)
            cuts.append((len(samples) / rate, cut))
            sounds.extend(samples[window.start : window.stop] for window in cut)
        vectors = self._embed_windows(sounds)
        found: list[Clip | None] = []
        at = 0
        for each in cuts:
            if each is None:
                found.append(None)
                continue
            seconds, cut = each
            part = vectors[at : at + len(cut)]
            at += len(cut)
            error = next((v for v in part if isinstance(v, Exception)), None)
            found.append(
                Clip(
                    np.empty(0) if error else np.stack(part).astype(np.float32),
                    np.array([window.weight for window in cut], np.float32),
                    np.array([window.start / rate for window in cut]),
                    seconds,
                    _model_error(error) if error else None,
                )
            )
        return found

    def _embed_windows(self, sounds: list[np.ndarray]) -> list[Any]:
        size = 1 if self.spec.deterministic else WINDOW_BATCH
        found: list[Any] = []
        for at in range(0, len(sounds), size):
            batch = sounds[at : at + size]
            try:
                found.extend(self.model.embed_windows(batch))
            except Exception:
                found.extend(_each(batch, lambda sound: self.model.embed_windows([sound])[0]))
        return found


def _each(items: list[Any], run: Any) -> list[Any]:
    """`run` for every item on its own: its result, or the exception it ended with."""
    results = []
    for item in items:
        try:
            results.append(run(item))
        except Exception as error:
            results.append(error)
    return results


def _model_error(error: Exception) -> tuple[str, str]:
    first = (str(error).splitlines() or [""])[0]
    return "model_error", f"the model failed on this row: {type(error).__name__}: {first}"[:500]


def _stored_clip(value: list[dict[str, Any]] | None) -> Clip | None:
    if not value:
        return None
    return Clip(
        np.array([window["embedding"] for window in value], np.float32),
        np.array([window["weight"] for window in value], np.float32),
        np.array([window["start_s"] for window in value]),
        float(sum(window["weight"] for window in value)),
    )


class Embed(ModelStage):
    """Rows + pcm → audio embeddings: the manifest's columns and `windows`."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        values: list[Any] = []
        for index, clip in enumerate(self.clips(rows)):
            if clip is None or clip.error:
                values.append([])
                if clip is not None and clip.error:
                    codes[index], messages[index] = clip.error
                continue
            values.append(
                [
                    {"start_s": start, "weight": weight, "embedding": vector}
                    for start, weight, vector in zip(clip.starts, clip.weights, clip.embeddings, strict=True)
                ]
            )
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        found = {"windows": values, "run_id": [self.spec.run_id] * len(rows)}
        rows = with_output(rows, "embed-audio", self.spec, found)
        return timed(rows, embed_s=time.monotonic() - started, began_at=began, ready_at=self.ready_at)


class Answer(ModelStage):
    """Rows + pcm or windows → answers."""

    _bridge: Any = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        from mats_core.audio.decode import pool_windows

        began, started = time.time(), time.monotonic()
        clips = self.clips(rows)
        embedded = time.monotonic()
        codes, messages = rows["error_code"].to_pylist(), rows["error_message"].to_pylist()
        requests = [
            {"task": task, "question": question, "tag": tag}
            for task, question, tag in zip(
                *(rows[name].to_pylist() for name in ("task", "question", "tag")), strict=True
            )
        ]
        jobs: list[tuple[int, int, np.ndarray]] = []  # (row, window or -1 for the whole, embedding [D])
        pooled: list[np.ndarray | None] = [None] * len(codes)
        for index, clip in enumerate(clips):
            if clip is None or codes[index] is not None:
                continue
            if clip.error:
                codes[index], messages[index] = clip.error
                continue
            pooled[index] = vector = pool_windows(clip.embeddings, clip.weights)
            jobs.append((index, -1, vector))
            if self.spec.segments:
                jobs.extend((index, w, each) for w, each in enumerate(clip.embeddings))
        replies = self._ask([(vector, requests[index]) for index, _, vector in jobs])
        size = 1 if self.spec.deterministic else self.spec.batch_size
        texts = ["" if code is None else None for code in codes]
        segments: list[Any] = [[] if self.spec.segments and code is None else None for code in codes]
        neighbors: list[Any] = [None] * len(codes)
        for (index, window, _), reply in zip(jobs, replies, strict=True):
            if isinstance(reply, Exception):
                codes[index], messages[index] = _model_error(reply)
            elif window < 0:
                texts[index] = reply.text
                neighbors[index] = reply.neighbors
            else:
                segments[index].append(self._segment(rows, index, clips[index], window, reply.text))
        for index, code in enumerate(codes):
            if code is not None:  # one failed window fails its row
                texts[index] = segments[index] = neighbors[index] = pooled[index] = None
        rows = with_column(rows, "error_code", codes, pa.string())
        rows = with_column(rows, "error_message", messages, pa.string())
        found = {
            "text": texts,
            "segments": segments,
            "model_fingerprint": [self.spec.fingerprint] * len(rows),
            "run_id": [self.spec.run_id] * len(rows),
            "embedding": pooled,
            "neighbors": [_plain(each) for each in neighbors],
        }
        rows = with_output(rows, "caption", self.spec, found)
        return timed(
            rows,
            embed_s=embedded - started,
            answer_s=time.monotonic() - embedded,
            tokens=float(sum(reply.tokens for reply in replies if not isinstance(reply, Exception))),
            asked=float(len(jobs)),
            places=float(math.ceil(len(jobs) / size) * size),
            began_at=began,
            ready_at=self.ready_at,
        )

    def _segment(self, rows: pa.Table, index: int, clip: Clip | None, window: int, text: str) -> dict[str, Any]:
        assert clip is not None
        base = rows["start_s"][index].as_py() or 0.0
        start = float(clip.starts[window])
        end = min(start + self.spec.window_s, clip.seconds)
        return {"start_s": base + start, "end_s": base + end, "text": text}

    def _ask(self, asked: list[tuple[np.ndarray, dict[str, Any]]]) -> list[Any]:
        size = 1 if self.spec.deterministic else self.spec.batch_size
        found: list[Any] = []
        for at in range(0, len(asked), size):
            batch = asked[at : at + size]
            try:
                found.extend(self._answer(batch))
            except Exception:
                found.extend(_each(batch, lambda one: self._answer([one])[0]))
        return found

    def _answer(self, batch: list[tuple[np.ndarray, dict[str, Any]]]) -> list[Any]:
        import torch

        from mats_core.memory.bridges import Bridge, BridgeSettings
        from mats_core.model.asking import Request
        from mats_core.model.config import SantaSettings

        vectors = torch.from_numpy(np.stack([vector for vector, _ in batch]))
        requests = [Request(**request) for _, request in batch]
        if self._bridge is None:
            self._bridge = Bridge(BridgeSettings(**self.spec.bridge), self.model.memory)
        santa = SantaSettings(**self.spec.santa) if self.spec.santa else None
        return self._bridge.answer(
            self.model, vectors, requests, self.spec.decoding or None, santa, explain=self.spec.explain
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
