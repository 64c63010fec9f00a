"""A benchmark as data: one YAML file each, so that a new benchmark is one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mats_core.errors import SettingsError, got_allowed
from mats_core.model.prompts import TASKS
from mats_core.scoring import METRICS, Kind, LabelSet
from mats_core.scoring.chat import AIR_BENCH_FIELDS
from pipelines.settings.base import build

FOLDER = Path(__file__).parent / "definitions"
AudioPatterns = list[str]
AIR_BENCH, MMAU = "air_bench", "mmau"


class Benchmark(BaseModel):
    """What is asked, what is right, how it is scored, and which files it takes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Short name, as in --benchmarks.")
    title: str = Field(description="Name as its publisher writes it.")
    kind: Kind = Field(description="caption, label, labels (several a clip), choice, chat.")
    task: str = Field(description=f"One of {', '.join(TASKS)}.")
    tag: str = Field("", description="Tag put into the prompt.")
    question: str = Field(
        "",
        description="What is asked of every item (default: the item's own question, which its file holds; else the "
        "instruction that the model has for the task).",
    )
    metrics: list[str] = Field(description="Metrics of its kind, in the order they are shown; the first leads.")
    labels: list[str] = Field(default_factory=list, description="The label set, where no file holds it.")
    spoken: dict[str, str] = Field(
        default_factory=dict, description="Publisher's label → the words a model is expected to say."
    )
    label_prompt: str = Field("This is a sound of {label}.", description="Text that stands for a label in CLAP.")
    reader: str = Field(description="Name of the reader of its files.")
    files: dict[str, list[str] | str] = Field(
        default_factory=dict, description="Role → path under its folder; of several the first that is there."
    )
    audio: AudioPatterns = Field(
        default_factory=list, description="Where an item's audio is, tried in turn; {…} are the reader's fields."
    )
    folder: str = Field("", description="Its folder under the benchmarks' root (default: its name).")
    split: str = Field(description="Which part is evaluated.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of the reader.")
    licence: str = Field(description="Licence of annotations and audio.")
    source: str = Field(description="Where to get it.")
    judge: Literal["", "air_bench", "mmau"] = Field(
        "", description="Whose judge takes the answers; the file that it takes is written."
    )
    note: str = Field("", description="What a reader of the figures must know.")

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task}: one of {', '.join(TASKS)}")
        unknown = [name for name in self.metrics if name not in METRICS[self.kind]]
        if unknown or not self.metrics:
            raise ValueError(f"metrics {', '.join(unknown) or 'none'}: {', '.join(METRICS[self.kind])}")
        if "{label}" not in self.label_prompt:
            raise ValueError("label_prompt: a text with {label}")
        repeated = {*AIR_BENCH_FIELDS} - {"response"} - {*self.options.get("extra", [])}
        if self.judge == AIR_BENCH and repeated:
            raise ValueError(f"options.extra: its judge's file also has {', '.join(sorted(repeated))}")
        return self

    def label_set(self, names: Sequence[str]) -> LabelSet:
        """Labels with the words for them and the texts that stand for them in CLAP's space."""
        spoken = tuple(self.spoken.get(name, name.replace("_", " ")) for name in names)
        return LabelSet(tuple(names), spoken, tuple(self.label_prompt.replace("{label}", word) for word in spoken))


def list_benchmarks() -> list[str]:
    """Names of the benchmarks that come with the code, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_benchmark(name_or_path: str) -> Benchmark:
    """A benchmark by name, or from a YAML file of one's own (a path ending in .yaml or .yml).

    Raises:
        SettingsError: for a name or file that is not there, and for wrong fields, by their name.
    """
    given = Path(name_or_path)
    path = given if given.suffix in (".yaml", ".yml") else FOLDER / f"{name_or_path}.yaml"
    if path is not given and name_or_path not in list_benchmarks():
        raise got_allowed("benchmarks", name_or_path, f"{', '.join(list_benchmarks())}, or a .yaml file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise got_allowed("benchmarks", name_or_path, f"a readable YAML file ({_first_line(error)})") from None
    if not isinstance(values, dict):
        raise got_allowed("benchmarks", name_or_path, "a YAML file of `field: value` lines")
    try:
        return build(Benchmark, values)
    except SettingsError as error:
        raise SettingsError(f"benchmarks: {path.name}: {error.setting}", error.problem, error.remedy) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
