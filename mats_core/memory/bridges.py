"""Ways to cross the gap between CLAP's audio and text embeddings, to choose from on one's own data.

    santa       mixed with noisy neighbours of one cluster (MATS, section 3.3); see santa.py
    none        the audio embedding as it is
    mean-shift  the difference of the two modalities' means added (Liang et al., "Mind the Gap", 2022)
    projection  the softmax-weighted sum of the whole memory in its place (Li et al., "DeCap", 2023)
    retrieval   the embedding as it is, and captions of the nearest memory entries in the prompt (Ghosh et al.,
                "RECAP", 2024)

Each is a function of the embedding, the memory and fixed settings, never of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import got_allowed

if TYPE_CHECKING:
    import torch

    from mats_core.memory.santa import SantaMemory
    from mats_core.model.asking import Reply, Request
    from mats_core.model.config import DecodingSettings, SantaSettings
    from mats_core.model.model import MatsModel

KINDS = ("santa", "none", "mean-shift", "projection", "retrieval")
_ROWS = 32_768  # rows of the memory that are read at once
_KEPT_BYTES = 128 << 20


class BridgeSettings(BaseModel):
    """Which way, and its numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["santa", "none", "mean-shift", "projection", "retrieval"] = "santa"
    scale: float = Field(100.0, ge=0, description="projection: factor on the cosines before the softmax")
    captions: int = Field(4, ge=1, description="retrieval: captions placed in the prompt")
    audio_mean: list[float] | None = Field(None, description="mean-shift: mean unit audio embedding [D]")


class Bridge:
    """One way with one memory. Raises SettingsError where what it needs is missing."""

    def __init__(self, settings: BridgeSettings, memory: SantaMemory | None) -> None:
        needs_memory = settings.kind in ("mean-shift", "projection", "retrieval")
        if needs_memory and memory is None:
            raise got_allowed("bridge", settings.kind, "santa or none: the model has no memory of texts")
        if settings.kind == "mean-shift" and settings.audio_mean is None:
            raise got_allowed("audio_mean", None, "the mean audio embedding, which mean-shift needs")
        self.settings, self.memory = settings, memory
        self._text_mean: np.ndarray | None = None
        self._table: np.ndarray | None = None

    def move(self, audio: Any, santa: SantaSettings | None = None) -> torch.Tensor:
        """Unit audio embeddings [B, D] → what the mapper is given, float32 [B, D] unit, on the same device."""
        import torch
        import torch.nn.functional as F

        audio = F.normalize(torch.as_tensor(audio, dtype=torch.float32), dim=-1)
        kind, memory = self.settings.kind, self.memory
        if kind == "mean-shift":
            if self._text_mean is None:
                self._text_mean = text_mean(memory)
            return mean_shift(audio, self.settings.audio_mean, self._text_mean)
        if kind == "projection":
            moved = self._project(audio.cpu().numpy())
            return F.normalize(torch.from_numpy(moved).to(audio.device), dim=-1)
        if kind == "santa" and memory is not None and santa is not None and santa.mix > 0:
            values = santa.model_dump(include={"neighbors", "scale", "mix", "probe", "noise_variance", "seed"})
            moved_by_santa: torch.Tensor = memory.transfer(audio, noise="keyed", **values)
            return moved_by_santa
        return audio

    def answer(
        self,
        model: MatsModel,
        embedding: torch.Tensor,
        requests: Sequence[Request],
        decoding: DecodingSettings | dict[str, Any] | None = None,
        santa: SantaSettings | None = None,
        explain: bool = False,
    ) -> list[Reply]:
        """`MatsModel.answer_embeddings` over this bridge; `explain` lists neighbours for santa and retrieval."""
        if self.settings.kind == "santa":
            return model.answer_embeddings(embedding, requests, decoding=decoding, santa=santa, explain=explain)
        neighbors: list[Any] = [None] * len(requests)
        if self.settings.kind == "retrieval" and len(requests):
            neighbors = self.nearest(embedding)
            requests = [_with_captions(model, request, near) for request, near in zip(requests, neighbors, strict=True)]
        moved = self.move(embedding.to(model.device))
        replies = model.answer_embeddings(moved, requests, decoding=decoding, santa={"mix": 0.0})
        if explain:
            for reply, near in zip(replies, neighbors, strict=True):
                reply.neighbors = near
        return replies

    def nearest(self, audio: Any) -> list[list[dict[str, Any]]]:
        """The memory entries nearest to each audio embedding [B, D], as `SantaMemory.transfer` explains them."""
        assert self.memory is not None
        found: list[list[dict[str, Any]]] = self.memory.transfer(
            audio, neighbors=self.settings.captions, probe="all", mix=0.0, noise=None, explain=True
        )[1]
        return found

    def _project(self, audio: np.ndarray) -> np.ndarray:
        """Σ softmax(scale · ⟨a, t⟩) t over all rows t: float32 [B, D], each query by itself, in one pass."""
        peaks = np.full(len(audio), -np.inf)
        totals = np.zeros(len(audio))
        sums = np.zeros(audio.shape)
        for texts in self._texts():
            for b, query in enumerate(audio):  # note: one by one, since a matrix product rounds by batch shape
                scores = self.settings.scale * (texts @ query).astype(np.float64)
                peak = max(peaks[b], float(scores.max()))
                shrink = np.exp(peaks[b] - peak)
                weights = np.exp(scores - peak)
                totals[b] = totals[b] * shrink + weights.sum()
                sums[b] = sums[b] * shrink + weights @ texts
                peaks[b] = peak
        return (sums / totals[:, None]).astype(np.float32)

    def _texts(self) -> Any:
        """Stored vectors float32 [n, D], `_ROWS` at a time; a small memory is kept."""
        assert self.memory is not None
        if self._table is None and self.memory.count * self.memory.dim * 4 <= _KEPT_BYTES:
            self._table = self.memory.vectors(np.arange(self.memory.count))
        for start in range(0, self.memory.count, _ROWS):
            stop = min(start + _ROWS, self.memory.count)
            yield self._table[start:stop] if self._table is not None else self.memory.vectors(np.arange(start, stop))


def mean_shift(audio: torch.Tensor, audio_mean: Any, text_mean: Any) -> torch.Tensor:
    """Unit audio [B, D] + (mean of texts − mean of audio) [D], normalised again."""
    import torch
    import torch.nn.functional as F

    texts, sounds = np.asarray(text_mean, np.float32), np.asarray(audio_mean, np.float32)
    for mean in (texts, sounds):
        if mean.shape != tuple(audio.shape[1:]):
            raise ValueError(f"means must be [{audio.shape[1]}], got {list(mean.shape)}")
    gap = texts - sounds
    return F.normalize(audio + torch.from_numpy(gap).to(audio.device), dim=-1)


def text_mean(memory: Any) -> np.ndarray:
    """Mean of all stored vectors, float32 [D]."""
    total = np.zeros(memory.dim)
    for start in range(0, memory.count, _ROWS):
        total += memory.vectors(np.arange(start, min(start + _ROWS, memory.count))).sum(axis=0, dtype=np.float64)
    mean: np.ndarray = (total / memory.count).astype(np.float32)
    return mean


def prompt_with_captions(instruction: str, captions: Sequence[str]) -> str:
    """An instruction after captions of sounds that are alike, each once."""
    known = [text.strip().rstrip(".") for text in dict.fromkeys(captions) if text.strip()]
    return f"Similar sounds: {'; '.join(known)}. {instruction}".strip() if known else instruction


def _with_captions(model: MatsModel, request: Request, near: Sequence[dict[str, Any]]) -> Request:
    asked = request.question if request.question and request.question.strip() else None
    instruction = asked or model.config.tasks[request.task].instruction
    return replace(request, question=prompt_with_captions(instruction, [each["caption"] for each in near]))
