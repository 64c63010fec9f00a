"""An evaluation data set as data: one YAML file each, so that a new data set is one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from mats_core.errors import SettingsError, first_line
from mats_core.model.prompts import TASKS
from mats_core.scoring import METRICS, Kind, LabelSet
from mats_core.scoring.chat import AIR_BENCH_FIELDS
from mats_core.storage.uris import Uri, path_of, uri_text
from pipelines.settings.base import Settings, build

FOLDER = Path(__file__).parent / "definitions"
AIR_BENCH, MMAU = "air_bench", "mmau"
"""Data sets whose publishers have a judge of their own: values of `judge`."""


class EvaluationSet(Settings):
    """What is asked, what is right, how it is scored, and which files it takes."""

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
    audio: list[str] = Field(
        default_factory=list, description="Where an item's audio is, tried in turn; {…} are the reader's fields."
    )
    folder: str = Field("", description="Its folder under the data root (default: its name).")
    split: str = Field(description="Which part is evaluated.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of the reader.")
    licence: str = Field(description="Licence of annotations and audio.")
    source: str = Field(description="Where to get it.")
    judge: Literal["", "air_bench", "mmau"] = Field(
        "", description="Whose judge takes the answers; the file that it takes is written."
    )
    note: str = Field("", description="What a reader of the figures must know.")

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationSet:
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

    def paths(self, role: str) -> list[str]:
        """The paths that the file of a role may have, the preferred one first."""
        given = self.files.get(role, [])
        return [given] if isinstance(given, str) else given

    def label_set(self, names: Sequence[str]) -> LabelSet:
        """Labels with the words for them and the texts that stand for them in CLAP's space."""
        spoken = tuple(self.spoken.get(name, name.replace("_", " ")) for name in names)
        return LabelSet(tuple(names), spoken, tuple(self.label_prompt.replace("{label}", word) for word in spoken))


def list_evaluation_sets() -> list[str]:
    """Names of the data sets that come with the code, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_evaluation_set(name_or_path: Uri) -> EvaluationSet:
    """The definition of a data set by name, or from a YAML file of one's own (a path ending in .yaml or .yml).

    Raises:
        SettingsError: for a name or file that is not there, and for wrong fields, by their name.
    """
    name_or_path = uri_text(name_or_path)
    given = path_of(name_or_path) or Path(name_or_path)
    path = given if given.suffix in (".yaml", ".yml") else FOLDER / f"{name_or_path}.yaml"
    if path is not given and name_or_path not in list_evaluation_sets():
        remedy = f"choose one of {', '.join(list_evaluation_sets())}, or give the path of a .yaml file"
        raise SettingsError("benchmarks", f'"{name_or_path}" is not a data set that comes with the code', remedy)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = f'"{name_or_path}" is not a readable YAML file ({first_line(error)})'
        raise SettingsError("benchmarks", problem, "repair the file, or choose another") from None
    if not isinstance(values, dict):
        problem = f'"{name_or_path}" holds no `field: value` lines'
        raise SettingsError("benchmarks", problem, f"write a YAML file as those in {FOLDER}")
    try:
        return build(EvaluationSet, values)
    except SettingsError as error:
        raise SettingsError(f"benchmarks: {path.name}: {error.setting}", error.problem, error.remedy) from None
