"""Settings of `mats corpus`: published labels, captions and questions → corpus records."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.settings.base import Address, Count, Device, Overwrite, Settings


class CorpusSettings(Settings):
    """Files of published sets → corpus records."""

    PATHS = ("data", "out")
    MODELS = ("writer",)
    names: list[str] = Field(default_factory=list, description='Sets to read (see --list), or "all".')
    data: str = Field("", description="Folder that the sets' folders are in, each with the files as published.")
    out: str = Field("", description="Folder that receives the records; run again to continue, or to add sets.")
    format: Literal["parquet", "json"] = Field(
        "parquet", description="parquet: OUT/records/NAME/*.parquet; json: OUT/NAME.json, as the authors have them."
    )
    writer: str = Field(
        "template",
        description="What writes text of labels: template, or a causal LLM of transformers (directory or name).",
    )
    device: Device = Field("auto", description="Of the LLM that writes: auto, cpu, cuda, cuda:0, …")
    seed: int = Field(0, ge=0, description="Of the text written.")
    list_: bool = Field(False, description="Show every set: what it needs, where it is from, licence, records.")
    dry_run: bool = Field(False, description="Read the files and say what would be written, and what left out.")
    workers: Count = Field(None, description="Processes that write records (default: one a core).")
    address: Address = None
    overwrite: Overwrite = False
