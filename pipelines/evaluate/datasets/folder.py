"""The folder of an evaluation data set: where its audio lies, and what a reader collects of it: items with unique ids,
whose audio is there; what is left out, and why."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mats_core.audio.signatures import AUDIO_EXTENSIONS
from mats_core.scoring import Item
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.published import folder as published
from pipelines.published.folder import columns_of

NO_AUDIO = "audio not found"


@dataclass
class Folder(published.Folder):
    """A published folder with its audio."""

    definition: EvaluationSet

    def __post_init__(self) -> None:
        self._stems: dict[str, str] = {}
        for path in sorted(self.found):
            stem, ending = posixpath.splitext(path)
            if ending.lower() in AUDIO_EXTENSIONS:
                self._stems.setdefault(stem, path)

    def columns(self, template: str, *named: str | None) -> list[str]:
        """The columns that a template, the patterns of the audio and what is named take, each once."""
        templates = [name for each in (template, *self.definition.audio) for name in columns_of(each)]
        return list(dict.fromkeys([*templates, *filter(None, named)]))

    def audio(self, fields: Mapping[str, Any]) -> tuple[str | None, str]:
        """(URI of an item's audio or None, why not), by the definition's patterns in turn.

        ``.*`` is any ending of an audio or video file. Raises SettingsError for fields that do not fit a pattern.
        """
        tried = []
        for pattern in self.definition.audio:
            path = posixpath.normpath(self.filled("audio", pattern, fields)).lstrip("/")
            tried.append(path)
            known = self._stems.get(path[:-2]) if path.endswith(".*") else path
            if known is not None and known in self.found:
                return self.found[known], ""
        return None, f"{NO_AUDIO}: {' or '.join(dict.fromkeys(tried))}"


@dataclass
class FoundItems:
    """Items of one folder, as a reader finds them: those whose audio is there.

    labels: those that occur anywhere in the reader's file. left_out: (item id, why) of items that cannot be asked.
    records: (item id, the publisher's record) of all items, where a file to submit must repeat them. places: item id →
    where in the reader's file it stands, of those that `check_new` has seen.
    """

    folder: Folder
    items: list[Item] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def check_new(self, item_id: str, where: str) -> None:
        """Raise SettingsError when an id was met before."""
        if item_id in self.places:
            problem = f"the id {item_id} is also at {self.places[item_id]}"
            raise self.folder.wrong(where, problem, "leave one of the two, or choose an id that tells items apart")
        self.places[item_id] = where

    def add(self, item_id: str, fields: Mapping[str, Any], **facts: Any) -> None:
        """An item whose audio is looked up by the definition's patterns; without audio it is left out."""
        definition = self.folder.definition
        uri, why = self.folder.audio(fields)
        if uri is None:
            self.left_out.append((item_id, why))
            return
        facts["question"] = str(facts.get("question") or "") or definition.question
        self.items.append(Item(item_id, uri, definition.task, tag=definition.tag, **facts))
