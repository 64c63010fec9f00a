"""A set of published labels, captions or questions as data: one YAML file each in sets/, so that a new set is one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from mats_core.errors import SettingsError, first_line
from mats_core.model.prompts import FAMILIES
from pipelines.settings.base import Settings, build

FOLDER = Path(__file__).parent / "sets"


class CorpusSet(Settings):
    """What a set tells of its clips, which files say it, and what records it becomes."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Short name, as in `mats corpus NAME`.")
    title: str = Field(description="Name as its publisher writes it.")
    publishes: Literal["labels", "captions", "questions"] = Field(description="What its publisher wrote of a clip.")
    subject: Literal["sound", "scene", "emotion", "voice", "instrument", "genre", "music"] = Field(
        "sound",
        description="What a label names: a sound, a place, a speaker's emotion, a sound of the voice, an instrument, a "
        "genre, or any of a piece of music (genre, instrument, mood).",
    )
    task: str = Field(description="Task of its records.")
    tag: str = Field("", description="Tag of its records in the prompt.")
    labels: list[str] = Field(
        default_factory=list, description="All its labels as published, where they are a closed list; else empty."
    )
    spoken: dict[str, str] = Field(
        default_factory=dict, description="Published label → words for it, where these do not follow from the label."
    )
    records_a_clip: int = Field(1, gt=0, description="Records written for a clip of which only labels are published.")
    reader: str = Field(description="Name of the reader of its files.")
    files: dict[str, list[str] | str] = Field(
        description="Role → path under its folder; of several the first that is there."
    )
    folder: str = Field("", description="Its folder under the data root (default: its name).")
    split: str = Field(description="Which part is taken.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of the reader.")
    clips: int = Field(gt=0, description="Clips to expect of its training part.")
    records: int = Field(gt=0, description="Records to expect of them.")
    licence: str = Field(description="Licence of what is read.")
    source: str = Field(description="Where to get it, and which release.")
    note: str = Field("", description="What a user of its records must know.")

    @model_validator(mode="after")
    def _consistent(self) -> CorpusSet:
        if self.task not in FAMILIES:
            raise ValueError(f"task {self.task} is none; choose one of {', '.join(FAMILIES)}")
        unknown = [label for label in self.spoken if self.labels and label not in self.labels]
        if unknown:
            raise ValueError(f"spoken: {', '.join(unknown)} is no label of the set; choose among its labels")
        return self

    def paths(self, role: str) -> list[str]:
        """The paths that the file of a role may have, the preferred one first."""
        given = self.files.get(role, [])
        return [given] if isinstance(given, str) else given


def list_corpus_sets() -> list[str]:
    """Names of the sets that come with the code, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load_corpus_set(name: str) -> CorpusSet:
    """The definition of a set by its name; raises SettingsError for a name that is none, and for wrong fields."""
    if name not in list_corpus_sets():
        problem = f'"{name}" is not a set that comes with the code'
        raise SettingsError("names", problem, f"choose of {', '.join(list_corpus_sets())}")
    try:
        return build(CorpusSet, yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        problem = f"{name}.yaml is not a readable YAML file ({first_line(error)})"
        raise SettingsError("names", problem, "repair the file") from None
    except SettingsError as error:
        raise SettingsError(f"names: {name}.yaml: {error.setting}", error.problem, error.remedy) from None
