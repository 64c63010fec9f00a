"""How the rows of a set's files are laid out, as options of its definition: what readers of evaluation sets and of
corpora have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from pipelines.settings.base import Settings


class TableLayout(Settings):
    """Which columns of a table say what."""

    separator: str = Field(",", description="Between the fields of a line.")
    header: list[str] | None = Field(None, description="Column names, where the file has no line of them.")
    more_columns: bool = Field(False, description="Lines may have more fields than the header has names.")
    id: str = Field(description="Template of an id.")
    group: bool = Field(False, description="Lines with the same id are one item (several captions, answers, labels).")
    keep: dict[str, list[str]] = Field(default_factory=dict, description="Column → values that belong to the split.")
    label: str | None = Field(None, description="Column with the label.")
    label_separator: str | None = Field(None, description="Between several labels in that column.")
    question: str | None = Field(None, description="Column with the question.")

    def keeps(self, row: Mapping[str, str]) -> bool:
        """Whether a row belongs to the split."""
        return all(row[column] in values for column, values in self.keep.items())

    def labels_of(self, row: Mapping[str, str]) -> list[str]:
        """The labels in a row, as published."""
        if not self.label:
            return []
        parts = row[self.label].split(self.label_separator) if self.label_separator else [row[self.label]]
        return [part.strip() for part in parts if part.strip()]


class RecordLayout(Settings):
    """Which fields of the objects of a JSON file say what."""

    under: str | None = Field(None, description="Key of the list, where the file is an object.")
    id: str = Field(description="Template of an id; {index} is the place in the list.")
    keep: dict[str, list[str]] = Field(default_factory=dict, description="Field → values that belong to the split.")
    label: str | None = Field(None, description="Field with the label.")
    label_table: list[str] | None = Field(
        None, description="Columns to take from the file `labels`: the label's code in records, and its name."
    )

    def keeps(self, record: Mapping[str, Any]) -> bool:
        """Whether a record belongs to the split."""
        return all(str(record[name]) in values for name, values in self.keep.items())


class NameLayout(Settings):
    """What a file's path says."""

    pattern: str = Field(description="Regular expression of a path below the folder, with a group `label`.")
    skip: str | None = Field(None, description="Paths of other splits or of no interest, as a regular expression.")
    codes: dict[str, str] = Field(default_factory=dict, description="What the group `label` holds → the label.")

    @field_validator("pattern", "skip")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        return value

    @field_validator("pattern")
    @classmethod
    def _has_label(cls, value: str) -> str:
        if "label" not in re.compile(value).groupindex:
            raise ValueError(f"{value} has no group named label; put (?P<label>…) around what tells the label")
        return value

    def skips(self, path: str) -> bool:
        """Whether a path is of no interest."""
        return self.skip is not None and re.search(self.skip, path) is not None

    def label_of(self, path: str) -> str | None:
        """The label that a path tells; None where it tells none."""
        match = re.search(self.pattern, path, re.IGNORECASE)
        code = match.group("label").lower() if match else None
        return None if code is None else self.codes.get(code, None if self.codes else code)
