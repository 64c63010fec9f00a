"""Settings of the text side: corpora → caption embeddings → memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipelines.settings.base import Address, AllowParts, Count, Device, Overwrite, Settings


def _pairs(value: Any) -> Any:
    """A mapping as the command line gives it: ["caption=text", …]."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        for each in value:
            if "=" not in each:
                raise ValueError(f"{each!r} is no pair; write our field = their name, as in caption=text")
        return {name.strip(): theirs.strip() for name, _, theirs in (each.partition("=") for each in value)}
    return value


NOISE = "_noise.json"
"""Beside caption embeddings: how much noise `mats noise` found that training with them should have."""

Columns = Annotated[dict[str, str], BeforeValidator(_pairs)]


class EmbedTextSettings(Settings):
    """Text corpora → caption embeddings."""

    PATHS = ("corpora", "output")
    MODELS = ("encoder",)
    corpora: list[str] = Field(
        min_length=1,
        description="Files, folders, globs or URLs: JSON lists, .jsonl, .csv, .parquet with a column `caption`.",
    )
    output: str = Field(description="Folder that receives the embeddings; run again to continue.")
    encoder: str = Field(
        "builtin", description="msclap:FILE, hf:NAME, a ClapModel directory, or a model directory (its encoder)."
    )
    allow_parts: AllowParts = Field(default_factory=list)
    columns: Columns = Field(
        default_factory=dict, description="Our field=their name, as in caption=text; once for each field."
    )
    max_error_rate: float = Field(0.01, ge=0, le=1, description="Share of records that may be unusable.")
    batch_size: int = Field(128, gt=0, description="Captions the encoder takes at once.")
    actors: Count = Field(None, description="Encoder processes (default: one a GPU, else by cores and memory).")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu, cuda.")
    address: Address = None
    bucket_records: int = Field(
        8192, gt=0, description="Records a part file comes from, about; a part is what is durable."
    )
    overwrite: Overwrite = False


class BuildMemorySettings(Settings):
    """Caption embeddings → Santa's memory."""

    PATHS = ("embeddings", "output")
    embeddings: str = Field(description="OUT of `mats embed-text`.")
    output: str = Field(description="Folder that receives the memory; a memory in it is replaced.")
    clusters: Count = Field(
        None, description="k-means centroids, Santa's clusters (default: √rows, but at least 39 rows each)."
    )
    storage: Literal["float32", "float16", "int8"] = Field("float16", description="Numbers a stored vector is made of.")
    sources: list[str] | None = Field(None, description="Take captions of these sources only; once for each.")
    cap: Count = Field(None, description="Take at most so many captions, drawn by --seed.")
    seed: int = Field(0, ge=0, description="Of the draw and of k-means.")
    iterations: int = Field(10, gt=0, description="Rounds of k-means.")
    train_rows: Count = Field(None, description="Rows k-means learns from (default: 64 a cluster, at least 50 000).")
    encoder: str | None = Field(None, description="Refuse embeddings of any encoder but this one.")
    allow_parts: AllowParts = Field(default_factory=list)
    shard_rows: Count = Field(None, description="Rows one task fills in (default: 64 MB of vectors).")
    address: Address = None


class NoiseSettings(Settings):
    """Pairs of sound and caption → the variance of the noise to train with."""

    embeddings: str = Field(description="OUT of `mats embed-text`: whose encoder is measured, and where it is noted.")
    pairs: str = Field(
        description="About 30 sounds with a caption each: a list (CSV, JSONL, Parquet) with columns `uri` and "
        "`caption`, or OUTPUT of `mats embed-audio` on one."
    )
    most: int = Field(30, gt=1, description="Pairs taken, the first ones that can be used.")
    encoder: str | None = Field(None, description="The encoder, where it no longer lies where it did.")
    device: Device = "auto"
    allow_parts: AllowParts = Field(default_factory=list)
