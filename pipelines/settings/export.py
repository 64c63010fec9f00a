"""Settings of `mats export`; apart from the pipeline, so that `--help` needs no pyarrow."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.settings.base import Overwrite, Settings

Kind = Literal[
    "csv", "xlsx", "jsonl", "json", "vtt", "srt", "audacity", "webdataset", "hf", "nemo", "lhotse"
]  # fmt: skip


class ExportSettings(Settings):
    """A run → what other programs read."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "What": ("to", "per", "where", "text", "uncorrected"),
        "Run": ("items", "overwrite"),
    }
    run: str = Field(description="OUTPUT of `mats caption` or `mats embed-audio`.")
    output: str | None = Field(
        None,
        description="File to write (csv, xlsx, jsonl, json, nemo, lhotse), or folder (vtt, srt, audacity, "
        "webdataset, hf); default: beside RUN, named after it.",
    )
    to: Kind = Field(
        description="csv, xlsx, jsonl: tables; vtt, srt, audacity: subtitles and label tracks, a file a sound; "
        "webdataset, hf: with the audio; nemo, lhotse: manifests; json: records "
        "as `mats train` and the authors' code read them."
    )
    per: Literal["chunk", "file", "window"] = Field(
        "chunk", description="One row a chunk, a file, or a window where the run has segments (`--segments`)."
    )
    where: str | None = Field(None, description="Only rows for which this holds: SQL over the run's columns.")
    text: str = Field("text", description="The column that is the text of a subtitle, a manifest or a record.")
    uncorrected: bool = Field(False, description="The run's own answers, also where `mats serve` put others right.")
    items: int = Field(1000, ge=1, description="Of webdataset and hf: sounds in one file of the data set.")
    overwrite: Overwrite = False

    def place(self) -> str:
        """Where to write."""
        endings = {"nemo": "-nemo.jsonl", "lhotse": "-lhotse.jsonl.gz"}
        ending = f".{self.to}" if self.to in ("csv", "xlsx", "jsonl", "json") else endings.get(self.to, f"-{self.to}")
        return self.output if self.output is not None else f"{self.run.rstrip('/')}{ending}"
