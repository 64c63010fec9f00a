"""A set of published labels, captions or questions as data: one YAML file each in sets/, so that a new set is one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mats_core.model.prompts import FAMILIES
from pipelines.published.definition import PublishedSet, list_sets, load_set


class CorpusSet(PublishedSet):
    """What a set tells of its clips, which files say it, and what records it becomes."""

    SETTING = "corpus"
    FOLDER = Path(__file__).parent / "sets"

    publishes: Literal["labels", "captions", "questions"] = Field(description="What its publisher wrote of a clip.")
    subject: Literal["sound", "scene", "emotion", "voice", "instrument", "genre", "music"] = Field(
        "sound",
        description="What a label names: a sound, a place, a speaker's emotion, a sound of the voice, an instrument, a "
        "genre, or any of a piece of music (genre, instrument, mood).",
    )
    records_a_clip: int = Field(1, gt=0, description="Records written for a clip of which only labels are published.")
    asked_whole: bool = Field(
        False, description="Whether evaluation asks all its clips, so that none are left out for being asked."
    )
    keywords: str = Field("", description="Column of `origin_file` with labels of a clip, separated by semicolons.")
    text_from: list[str] = Field(
        default_factory=list,
        description="Sets, the preferred first, whose text of the same clip stands for its sound, where none is here.",
    )
    clips: int = Field(gt=0, description="Clips that its training part has.")
    records: int = Field(gt=0, description="Records to expect of them, before what evaluation asks is left out.")
    about: list[Literal["clips", "records"]] = Field(
        default_factory=list, description="Which of these counts are near; the others are what its publisher tells."
    )
    other_releases: dict[int, str] = Field(
        default_factory=dict, description="Number of clips → the release that has as many, which is not this one."
    )

    @model_validator(mode="after")
    def _consistent(self) -> CorpusSet:
        if self.task not in FAMILIES:
            raise ValueError(f"task {self.task} is none; choose one of {', '.join(FAMILIES)}")
        unknown = [label for label in self.spoken if self.labels and label not in self.labels]
        if unknown:
            raise ValueError(f"spoken: {', '.join(unknown)} is no label of the set; choose among its labels")
        return self

    def counted(self, what: Literal["clips", "records"]) -> str:
        """How many clips or records there are, for people: "about 7,800 clips"."""
        return f"{'about ' if what in self.about else ''}{getattr(self, what):,} {what}"


def list_corpus_sets() -> list[str]:
    """Names of the sets that come with the code, sorted."""
    return list_sets(CorpusSet)


@cache
def load_corpus_set(name: str) -> CorpusSet:
    """As `load_set`, of a set for training."""
    return load_set(CorpusSet, name)
