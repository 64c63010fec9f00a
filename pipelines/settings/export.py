"""Settings of `mats export` and `mats sample`; apart from the pipeline, so that `--help` needs no pyarrow."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mats_core.errors import SettingsError
from pipelines.settings.base import Overwrite, Settings

Kind = Literal[
    "csv", "xlsx", "jsonl", "json", "vtt", "srt", "audacity", "webdataset", "hf", "nemo", "lhotse"
]  # fmt: skip
KINDS_SAID = (
    "csv, xlsx, jsonl: tables; vtt, srt, audacity: subtitles and label tracks, a file a sound; webdataset, hf: with "
    "the audio; nemo, lhotse: manifests; json: records as `mats train` and the authors' code read them"
)
DRAWN_AS = (".csv", ".jsonl", ".xlsx")


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
        None, validate_default=True, description=f"{KINDS_SAID} (default: by the ending of a table's OUTPUT)."
    )
    per: Literal["chunk", "file", "window"] = Field(
        "chunk", description="One row a chunk, a file, or a window where the run has segments (`--segments`)."
    )
    where: str | None = Field(None, description="Only rows for which this holds: SQL over the run's columns.")
    text: str = Field("text", description="The column that is the text of a subtitle, a manifest or a record.")
    uncorrected: bool = Field(False, description="The run's own answers, also where `mats serve` put others right.")
    items: int = Field(1000, ge=1, description="Of webdataset and hf: sounds in one file of the data set.")
    overwrite: Overwrite = False

    @field_validator("to", mode="before")
    @classmethod
    def _by_ending(cls, to: Any, info: ValidationInfo) -> Any:
        if to is not None:
            return to
        ending = str(info.data.get("output") or "").lower().rpartition(".")[2]
        if ending not in ("csv", "xlsx", "jsonl"):
            raise ValueError(f"it is missing, and OUTPUT does not tell by its ending; choose {KINDS_SAID}")
        return ending

    def place(self) -> str:
        """Where to write."""
        endings = {"nemo": "-nemo.jsonl", "lhotse": "-lhotse.jsonl.gz"}
        ending = f".{self.to}" if self.to in ("csv", "xlsx", "jsonl", "json") else endings.get(self.to, f"-{self.to}")
        return self.output if self.output is not None else f"{self.run.rstrip('/')}{ending}"


class SampleSettings(Settings):
    """A run → clips for a person to judge, and what the judgements say of the whole run."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "Draw": ("n", "out", "seed", "where", "overwrite"),
        "Judge": ("judge", "target", "blank"),
    }
    run: str = Field(description="OUTPUT of `mats caption`.")
    n: int = Field(200, ge=1, le=1_000_000, description="How many clips to draw.")
    out: str | None = Field(None, description=f"File to write: {', '.join(DRAWN_AS)}.")
    seed: int = Field(0, ge=0, description="Of the draw: the same run, number and seed give the same clips.")
    where: str | None = Field(None, description="Draw only from rows for which this holds: SQL over the run's columns.")
    overwrite: Overwrite = False
    judge: str | None = Field(
        None, description="File of an earlier draw whose column `correct` is filled in: say how many answers are right."
    )
    target: float = Field(
        0.95, gt=0, lt=1, description="Find the confidence from which on this share of the answers is right."
    )
    blank: Literal["skip", "wrong"] | None = Field(
        None, description="What an empty `correct` means: skip (not judged yet; the default), or wrong."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> SampleSettings:
        if (self.judge is None) == (self.out is None):
            problem = "neither --out nor --judge is given" if self.judge is None else "--judge writes no clips"
            raise SettingsError("out", problem, "draw with --out FILE, then judge with --judge FILE")
        if self.judge is not None and self.where is not None:
            problem = "--judge says how many answers are right among those that the clips were drawn from"
            raise SettingsError("where", problem, "leave out --where, or draw with it (--out), and judge that file")
        if self.out is not None and not self.out.lower().endswith(DRAWN_AS):
            raise SettingsError("out", f'"{self.out}" is none of {", ".join(DRAWN_AS)}', "name the file by its kind")
        return self
