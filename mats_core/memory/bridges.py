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

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mats_core.errors import SettingsError, checked

if TYPE_CHECKING:
    import torch

    from mats_core.memory.santa import SantaMemory

KINDS = ("santa", "none", "mean-shift", "projection", "retrieval")
ROWS_AT_ONCE = 32_768  # rows of the memory that are read at once
_IN_MEMORY = 128 << 20  # bytes of vectors up to which `projection` keeps the whole memory instead of reading it again


class SantaSettings(BaseModel):
    """How Santa moves an audio embedding towards the memory's text embeddings."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    neighbors: int = Field(32, ge=1)
    scale: float = Field(10.0, ge=0, description="factor on the cosines before the softmax")
    mix: float = Field(0.3, ge=0, le=1, description="share of the memory in the result; 0 turns Santa off")
    probe: int | Literal["all"] = Field(1, description="clusters searched for each embedding")
    noise_variance: float = Field(0.015, ge=0)
    seed: int = Field(0, ge=0, description="with the memory row, the key of that row's noise")

    @model_validator(mode="after")
    def _probe_positive(self) -> SantaSettings:
        if self.probe != "all" and self.probe < 1:
            raise ValueError('probe is less than 1; give at least 1, or "all"')
        return self

    def updated(self, changes: SantaSettings | dict[str, Any] | None) -> SantaSettings:
        """These settings with `changes` over them: a whole object replaces, a dict replaces what it names."""
        if changes is None or isinstance(changes, SantaSettings):
            return changes or self
        chosen: SantaSettings = checked(SantaSettings, {**self.model_dump(), **changes}, "santa")
        return chosen


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
            why = f"{settings.kind} needs a memory of texts, and the model has none"
            raise SettingsError("bridge", why, "choose santa or none")
        if settings.kind == "mean-shift" and settings.audio_mean is None:
            raise SettingsError("audio_mean", "mean-shift needs the mean audio embedding", "give it")
        self.settings, self.memory = settings, memory
        self._table: np.ndarray | None = None

    def move(self, audio: Any, santa: SantaSettings | None = None, explain: bool = False) -> Any:
        """Audio embeddings [B, D] of any length → what the mapper is given, float32 [B, D] unit, on the same device.

        santa: its numbers; without them, without a memory or with `mix` 0 the way "santa" leaves the audio as it is.
        explain=True returns also, for each row, the memory entries that were used as `SantaMemory.transfer` explains
        them, or None: Santa's neighbours, and the captions that "retrieval" puts in the prompt.
        """
        import torch
        import torch.nn.functional as F

        given = torch.as_tensor(audio, dtype=torch.float32)  # [B, D]
        audio = F.normalize(given, dim=-1)
        kind, memory = self.settings.kind, self.memory
        moved: torch.Tensor = audio
        entries: list[Any] = [None] * len(audio)
        if kind == "mean-shift":
            moved = mean_shift(audio, self.settings.audio_mean, self._text_mean)
        elif kind == "projection":
            moved = F.normalize(torch.from_numpy(self._project(audio.cpu().numpy())).to(audio.device), dim=-1)
        elif kind == "retrieval" and explain and len(audio):
            entries = self.nearest(given)
        elif kind == "santa" and memory is not None and santa is not None and santa.mix > 0:
            found = memory.transfer(audio, noise="keyed", explain=explain, **santa.model_dump())
            moved, entries = found if explain else (found, entries)
        return (moved, entries) if explain else moved

    @cached_property
    def _text_mean(self) -> np.ndarray:
        return text_mean(self.memory)

    def nearest(self, audio: Any) -> list[list[dict[str, Any]]]:
        """The memory entries nearest to each audio embedding [B, D], as `SantaMemory.transfer` explains them."""
        assert self.memory is not None
        used = self.settings.captions
        found: list[list[dict[str, Any]]]
        _, found = self.memory.transfer(audio, neighbors=used, probe="all", mix=0.0, noise=None, explain=True)
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

    def _texts(self) -> Iterator[np.ndarray]:
        """Stored vectors float32 [n, D], `ROWS_AT_ONCE` at a time; those of a small memory stay in this process."""
        assert self.memory is not None
        if self._table is None and self.memory.count * self.memory.dim * 4 <= _IN_MEMORY:
            self._table = self.memory.vectors(np.arange(self.memory.count))
        for start in range(0, self.memory.count, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, self.memory.count)
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


def text_mean(memory: SantaMemory | None) -> np.ndarray:
    """Mean of all stored vectors, float32 [D]."""
    assert memory is not None
    total = np.zeros(memory.dim)
    for start in range(0, memory.count, ROWS_AT_ONCE):
        total += memory.vectors(np.arange(start, min(start + ROWS_AT_ONCE, memory.count))).sum(axis=0, dtype=np.float64)
    return np.asarray(total / memory.count, np.float32)


def prompt_with_captions(instruction: str, captions: Sequence[str]) -> str:
    """An instruction after captions of sounds that are alike, each once."""
    known = [text.strip().rstrip(".") for text in dict.fromkeys(captions) if text.strip()]
    return f"Similar sounds: {'; '.join(known)}. {instruction}".strip() if known else instruction
