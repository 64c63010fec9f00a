"""An evaluation data set as data: one YAML file each, so that a new data set is one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mats_core.model.prompts import TASKS
from mats_core.scoring import METRICS, Kind, LabelSet
from mats_core.scoring.chat import AIR_BENCH_FIELDS
from mats_core.storage.uris import Uri
from pipelines.published.definition import PublishedSet, list_sets, load_set

AIR_BENCH, MMAU = "air_bench", "mmau"
"""Data sets whose publishers have a judge of their own: values of `judge`."""


class EvaluationSet(PublishedSet):
    """What is asked, what is right, how it is scored, and which files it takes."""

    SETTING = "benchmarks"
    FOLDER = Path(__file__).parent / "definitions"

    kind: Kind = Field(description="caption, label, labels (several a clip), choice, chat.")
    question: str = Field(
        "",
        description="What is asked of every item (default: the item's own question, which its file holds; else the "
        "instruction that the model has for the task).",
    )
    metrics: list[str] = Field(description="Metrics of its kind, in the order they are shown; the first leads.")
    label_prompt: str = Field("This is a sound of {label}.", description="Text that stands for a label in CLAP.")
    audio: list[str] = Field(
        default_factory=list, description="Where an item's audio is, tried in turn; {…} are the reader's fields."
    )
    expected: int = Field(
        0, ge=0, description="Items that its part has where all of it is there (default: as many as its files name)."
    )
    counted: str = Field(
        "", description="Where `expected` was read or counted (default: nowhere; it is told as about so many)."
    )
    judge: Literal["", "air_bench", "mmau"] = Field(
        "", description="Whose judge takes the answers; the file that it takes is written."
    )

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationSet:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task}: one of {', '.join(TASKS)}")
        unknown = [name for name in self.metrics if name not in METRICS[self.kind]]
        if unknown or not self.metrics:
            wrong = ", ".join(unknown) or "none"
            raise ValueError(f"metrics {wrong} cannot judge {self.kind}; choose {', '.join(METRICS[self.kind])}")
        if "{label}" not in self.label_prompt:
            raise ValueError("label_prompt: a text with {label}")
        repeated = {*AIR_BENCH_FIELDS} - {"response"} - {*self.options.get("extra", [])}
        if self.judge == AIR_BENCH and repeated:
            raise ValueError(f"options.extra: its judge's file also has {', '.join(sorted(repeated))}")
        return self

    @property
    def size(self) -> str:
        """How many items it has where all of it is there, in words."""
        if not self.expected:
            return "as many as its file names"
        return f"{'' if self.counted else 'about '}{self.expected:,}"

    def label_set(self, names: Sequence[str]) -> LabelSet:
        """Labels with the words for them and the texts that stand for them in CLAP's space."""
        spoken = tuple(self.spoken.get(name, name.replace("_", " ")) for name in names)
        return LabelSet(tuple(names), spoken, tuple(self.label_prompt.replace("{label}", word) for word in spoken))


def list_evaluation_sets() -> list[str]:
    """Names of the data sets that come with the code, sorted."""
    return list_sets(EvaluationSet)


def load_evaluation_set(name_or_path: Uri) -> EvaluationSet:
    """As `load_set`, of an evaluation data set."""
    return load_set(EvaluationSet, name_or_path)
