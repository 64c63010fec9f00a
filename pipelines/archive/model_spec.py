"""What the model actors of a run must know."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mats_core.audio.levels import SILENCE_DBFS
from pipelines.settings.archive import RunSettings

if TYPE_CHECKING:
    from mats_core.model.facts import ModelFacts


@dataclass(frozen=True)
class ModelSpec:
    """What a model actor must know: plain data, sent to every actor.

    model: its URI; window_s: seconds of its encoder's window; decoding, santa, bridge: settings of an answer, where
    they are not the model's own. The other fields are the settings of the same name.
    """

    model: str
    device: str = "auto"
    llm_dtype: str = "auto"
    mapper_dtype: str = "float32"
    encoder_dtype: str = "float32"
    trust_remote_code: bool = False
    window_s: float = 0.0
    deterministic: bool = False
    silence_dbfs: float = SILENCE_DBFS
    answer_silence: bool = False
    score: bool = True
    rerank: int = 0
    min_confidence: float = 0.0
    batch_size: int | None = None
    segments: bool = False
    explain: bool = False
    with_embedding: bool = False
    decoding: dict[str, Any] = field(default_factory=dict)
    santa: dict[str, Any] = field(default_factory=dict)
    bridge: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    allow_parts: tuple[str, ...] = ()


def model_spec(settings: RunSettings, facts: ModelFacts, **answering: Any) -> ModelSpec:
    """What the actors of a run must know; answering: the settings of an answer, for the stage that asks."""
    answering["allow_parts"] = facts.elsewhere
    names = {each.name for each in fields(ModelSpec)} - set(answering)  # settings of the same name are taken over
    given = settings.model_dump(include=names)
    return ModelSpec(window_s=facts.window_s, fingerprint=facts.fingerprint, **given, **answering)
