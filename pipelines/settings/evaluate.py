"""Settings of `mats evaluate`, and a grid of them: which cells there are and what each changes; of `mats calibrate`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from pydantic import Field

from mats_core.errors import SettingsError
from mats_core.memory.bridges import KINDS as BRIDGES
from mats_core.storage.fingerprint import cache_root
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.base import AllowParts, Device, NumberTypes, Settings, build

AXES = {
    "santa.mix": "santa_mix",
    "santa.neighbors": "santa_neighbors",
    "santa.scale": "santa_scale",
    "noise.variance": "santa_noise_variance",
    "bridge": "bridge",
    "projection.scale": "projection_scale",
    "retrieval.captions": "retrieved",
    "beams": "beams",
    "max_new_tokens": "max_new_tokens",
    "repetition_penalty": "repetition_penalty",
    "length_penalty": "length_penalty",
}
"""Names of grid axes → the setting of `mats caption` that each varies."""

MOST_CELLS = 200
RUN_FIELDS = (
    "batch_size", "actors", "decoders", "device", "address", "commit_rows", "commit_seconds", "deterministic",
    "llm_dtype", "mapper_dtype", "encoder_dtype",
)  # fmt: skip


class EvaluateSettings(NumberTypes):
    """Evaluation data sets + model → predictions, metrics, a page."""

    axes: list[str] = Field(default_factory=list, description="More axes of the grid: NAME=VALUE,VALUE …")
    model: str = Field("builtin", description='Model directory (path or URL), or "builtin".')
    allow_parts: AllowParts = Field(default_factory=list)
    benchmarks: str = Field("", description="Names with commas between them (see --list), or YAML files of your own.")
    suite: str = Field(
        "",
        description="Instead of benchmarks: run what is there of a suite, and print its tables with published figures "
        "beside ours: paper, or a YAML file.",
    )
    out: str = Field("", description="Folder of the run: predictions, metrics, page; run again to continue.")
    data: list[str] = Field(
        default_factory=list,
        description="Where the benchmarks' folders are: ROOT for all, or NAME=ROOT for one; several times "
        "(default: $MATS_BENCHMARKS, else the cache).",
    )
    limit: int | None = Field(None, gt=0, description="The first so many items of each benchmark.")
    list_: bool = Field(False, description="Show the benchmarks, and what is missing to run each.")
    settings_: bool = Field(False, description="Print a commented YAML file of a benchmark of your own.")
    grid: list[str] = Field(
        default_factory=list, description=f"A table of settings: NAME=VALUE,VALUE … of {', '.join(AXES)}."
    )
    bridge: str = Field("santa", description=f"Way from audio to text embeddings: {', '.join(BRIDGES)}.")
    orders: int = Field(3, gt=0, le=24, description="Orders in which the options of a question are asked.")
    seed: int = Field(0, ge=0, description="Of the bootstrap, the shuffled baseline and the first order of options.")
    players: int = Field(12, ge=0, le=100, description="Worst and best cases with players, for each benchmark.")
    history: str = Field("", description="Folder (path or URL) where runs are kept; this one is added.")
    against: str = Field("", description='"accepted", or a run id: compare with it and with the pinned run.')
    tolerance: float = Field(0.01, ge=0, description="A larger fall of a metric ends with code 4.")
    ungated: list[str] = Field(
        default_factory=list,
        description="BENCHMARK/METRIC that --against leaves out; several times. Any other metric that an accepted run "
        "has and this one cannot show closes the gate.",
    )
    accept: bool = Field(
        False,
        description="Accept this run where the gate stays open. Without --against no gate is asked, and every complete "
        "run is accepted.",
    )
    batch_size: int | None = Field(None, gt=0, description="Rows the model takes at once (default: chosen).")
    actors: int | None = Field(None, gt=0, description="Model processes (default: chosen).")
    decoders: int | None = Field(None, gt=0, description="Decoding processes (default: chosen).")
    device: Device = Field("auto", description="auto, cpu, cuda.")
    address: str | None = Field(None, description="Join this Ray cluster; default: a Ray of its own.")
    commit_rows: int | None = Field(None, gt=0, description="Rows in one part file (default: chosen).")
    commit_seconds: float | None = Field(
        None, gt=0, description="Write a part at least this often (default: 120, but never before --commit-rows)."
    )
    deterministic: bool = Field(False, description="One row at a time in the model.")
    overwrite: bool = Field(False, description="Start anew: remove the answers that OUT holds.")
    max_error_rate: float = Field(1.0, ge=0, le=1, description="Exit with code 3 when a larger share of rows failed.")

    def names(self) -> list[str]:
        """The data sets asked for, each once. Raises SettingsError when there are none."""
        found = list(dict.fromkeys(name.strip() for name in self.benchmarks.split(",") if name.strip()))
        if not found:
            remedy = "give their names with commas between them; --list shows them"
            raise SettingsError("benchmarks", "none is named", remedy)
        return found

    def roots(self, names: list[str]) -> dict[str, str]:
        """Data set → the folder that its own is in: by --data, else $MATS_BENCHMARKS, else the cache."""
        return data_roots(self.data, names)

    def caption_settings(self, **values: Any) -> CaptionSettings:
        """Settings of `mats caption` for one cell: what it shares with this run, and `values` over it; without an input
        and an output where these give none."""
        shared = self.model_dump(include={*RUN_FIELDS, "model", "allow_parts", "bridge", "overwrite"})
        return build(CaptionSettings, {"input": "", "output": "", **shared, **values})


def data_roots(data: list[str], names: list[str]) -> dict[str, str]:
    """Data set → the folder that its own is in: by ROOT or NAME=ROOT, else $MATS_BENCHMARKS, else the cache."""
    general = os.environ.get("MATS_BENCHMARKS") or str(cache_root() / "benchmarks")
    own = {}
    for value in data:
        name, equals, root = value.partition("=")
        if not value.strip() or (equals and not root.strip()):
            remedy = "give ROOT or NAME=ROOT, neither of them empty (. is where you are)"
            raise SettingsError("data", f'"{value}" names no folder', remedy)
        if not equals or "/" in name:
            general = value
        elif name in names:
            own[name] = root
        else:
            problem = f'"{name}" is not among the data sets asked for'
            raise SettingsError("data", problem, f"give ROOT, or NAME=ROOT with NAME one of {', '.join(names)}")
    return {name: own.get(name, general) for name in names}


class CalibrateSettings(Settings):
    """Judged answers + a model → its calibration."""

    model: str = Field(description='Model directory, or "builtin"; the calibration is written into it.')
    data: str = Field(
        description="What is judged: an evaluation data set (a name, or a YAML file), predictions of `mats evaluate`, "
        "or a table (CSV, JSONL, XLSX, Parquet) with uri, task, question and correct (true or false)."
    )
    blank: Literal["skip", "wrong"] | None = Field(
        None, description="What an empty `correct` means: skip (not judged; the default), or wrong."
    )
    root: str = Field("", description="Where the data set's folder is (default: $MATS_BENCHMARKS, else the cache).")
    metric: str = Field("", description="Metric that judges answers (default: as `mats evaluate` does).")
    at_least: float | None = Field(None, description="What a right answer reaches in it (default: by the metric).")
    rerank: int = Field(0, ge=0, le=64, description="Calibrate answers that are the best of so many beams.")
    overwrite: bool = Field(False, description="Replace the calibration that the model has.")
    limit: int | None = Field(None, gt=0, description="The first so many clips.")
    batch_size: int = Field(16, gt=0, description="Clips that are asked at once.")
    device: Device = Field("auto", description="auto, cpu, cuda.")
    trust_remote_code: bool = Field(False, description="Run Python files that come with the LLM.")
    allow_parts: AllowParts = Field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One combination of a grid. `name` is a folder's and a table's name; `changes` go over CaptionSettings."""

    name: str
    values: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


def cells(settings: EvaluateSettings) -> list[Cell]:
    """All combinations of the grid's values, the last axis fastest; one cell "run" without a grid.

    Raises SettingsError for axes that are not known, values that are not allowed, and too many cells.
    """
    axes: dict[str, list[str]] = {}
    for given in [*settings.grid, *settings.axes]:
        for part in given.split():
            name, equals, values = part.partition("=")
            wanted = list(dict.fromkeys(value.strip() for value in values.split(",") if value.strip()))
            if not equals or name not in AXES or not wanted:
                remedy = f"give NAME=VALUE,VALUE with NAME one of {', '.join(AXES)}"
                raise SettingsError("grid", f'"{part}" is not an axis with values', remedy)
            if name in axes:
                raise SettingsError("grid", f"{name} comes twice", "give every axis once, with all its values")
            axes[name] = wanted
    if not axes:
        settings.caption_settings()
        return [Cell("run")]
    found = []
    for combination in product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        changes: dict[str, Any] = {AXES[name]: value for name, value in chosen.items()}
        if changes.get("bridge", "santa") not in BRIDGES:
            problem = f'"{changes["bridge"]}" is not a bridge'
            raise SettingsError("grid", problem, f"choose of {', '.join(BRIDGES)}")
        try:
            checked = settings.caption_settings(**changes)
        except SettingsError as error:
            raise SettingsError(f"grid: {error.setting}", error.problem, error.remedy) from None
        changes = {name: getattr(checked, name) for name in changes}
        found.append(Cell(",".join(f"{name}={value}" for name, value in chosen.items()), chosen, changes))
    if len(found) > MOST_CELLS:
        problem = f"{len(found)} cells, of which at most {MOST_CELLS} are allowed"
        raise SettingsError("grid", problem, "give fewer axes or values")
    return found
