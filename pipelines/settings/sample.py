"""Settings of `mats sample`; apart from the pipeline, so that `--help` needs no pyarrow."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from mats_core.errors import SettingsError
from pipelines.settings.base import Overwrite, Settings

ENDINGS = (".csv", ".jsonl", ".xlsx")


class SampleSettings(Settings):
    """A run → clips for a person to judge, and what the judgements say of the whole run."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "Draw": ("n", "out", "seed", "where", "overwrite"),
        "Judge": ("judge", "target", "blank"),
    }
    run: str = Field(description="OUTPUT of `mats caption`.")
    n: int = Field(200, ge=1, le=1_000_000, description="How many clips to draw.")
    out: str | None = Field(None, description=f"File to write: {', '.join(ENDINGS)}.")
    seed: int = Field(0, ge=0, description="Of the draw: the same run, number and seed give the same clips.")
    where: str | None = Field(None, description="Draw only from rows for which this holds: SQL over the run's columns.")
    overwrite: Overwrite = False
    judge: str | None = Field(
        None, description="File of an earlier draw whose column `right` is filled in: say how many answers are right."
    )
    target: float = Field(
        0.95, gt=0, lt=1, description="Find the confidence from which on this share of the answers is right."
    )
    blank: Literal["skip", "wrong"] | None = Field(
        None, description="What an empty `right` means: skip (not judged yet; the default), or wrong."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> SampleSettings:
        if (self.judge is None) == (self.out is None):
            problem = "neither --out nor --judge is given" if self.judge is None else "--judge writes no clips"
            raise SettingsError("out", problem, "draw with --out FILE, then judge with --judge FILE")
        if self.out is not None and not self.out.lower().endswith(ENDINGS):
            raise SettingsError("out", f'"{self.out}" is none of {", ".join(ENDINGS)}', "name the file by its kind")
        return self
