"""Reader `names`: data sets whose labels stand in the names of their audio files."""

from __future__ import annotations

import posixpath
import re

from pydantic import Field, field_validator

from pipelines.evaluate.datasets.folder import Folder, FoundItems
from pipelines.settings.base import Settings

ENDINGS = (".wav", ".au", ".flac", ".mp3", ".ogg", ".m4a")


class NameOptions(Settings):
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


def read(folder: Folder) -> FoundItems:
    """An item for every audio file whose path fits; audio files whose path does not are left out, and named."""
    options = folder.options(NameOptions)
    pattern, skip = re.compile(options.pattern, re.IGNORECASE), re.compile(options.skip) if options.skip else None
    if "label" not in pattern.groupindex:
        problem = f"{options.pattern} has no group named label"
        raise folder.wrong("options.pattern", problem, "put (?P<label>…) around what tells the label")
    found = FoundItems(folder)
    for path in sorted(folder.found):
        if posixpath.splitext(path)[1].lower() not in ENDINGS or (skip and skip.search(path)):
            continue
        match = pattern.search(path)
        code = match.group("label").lower() if match else None
        label = None if code is None else options.codes.get(code, None if options.codes else code)
        if label is None:
            found.left_out.append((path, "its name does not say a label"))
            continue
        found.check_new(path, path)
        found.labels.append(label)
        found.add(path, {"path": path}, labels=(label,))
    found.labels = sorted(set(found.labels))
    return found
