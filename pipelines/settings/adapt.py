"""The settings of `mats adapt`: a model, sentences, and how the two are brought together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from mats_core.model.prompts import family
from pipelines.settings.base import AllowParts, Count, Device, Overwrite, Settings, Several
from pipelines.settings.text import Columns


class AdaptSettings(Settings):
    """Sentences about an archive → a model that knows their words."""

    model: str = Field(description='The model to begin with: a directory, a URL, or "builtin".')
    text: Annotated[list[str], Several] = Field(
        min_length=1,
        description="Sentences about the archive: .txt, one a line; or records with a column `caption` (JSON, JSONL, "
        "CSV, Parquet), such as the answers of a run (--columns caption=text); or an OUTPUT: what `mats serve` put "
        "right in it. Once for each file.",
    )
    out: str = Field(description="Model directory to write; run again to continue.")
    columns: Columns = Field(
        default_factory=dict, description="Our field=their name in records, as in caption=text; once for each field."
    )
    task: str = Field("caption", description="Task of sentences and records that name none.")
    replay: float = Field(
        0.5, ge=0, lt=1, description="Share of what is trained on that is the model's own training text."
    )
    replay_text: Annotated[list[str], Several] = Field(
        default_factory=list,
        description="Its own training text as records, where you have it (default: the captions of its memory, with "
        "what the model itself says of them).",
    )
    replay_captions: int = Field(
        4000, gt=0, description="Captions of the memory that are taken, the same number for each of its tasks."
    )
    steps: int = Field(300, gt=0, description="Training steps.")
    batch_size: int = Field(48, gt=0, description="Samples a step.")
    learning_rate: Annotated[float | None, Field(gt=0)] = Field(
        None, description="Highest learning rate (default: by the width of the LLM)."
    )
    seed: int = Field(0, ge=0, description="Of all draws.")
    workers: Count = Field(None, description="Training processes (default: one a GPU, else one).")
    device: Device = Field("auto", description="auto, cpu, cuda.")
    allow_parts: AllowParts = Field(default_factory=list)
    max_error_rate: float = Field(0.01, ge=0, le=1, description="Share of sentences that may be unusable.")
    overwrite: Overwrite = False

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        family(value)
        return value
