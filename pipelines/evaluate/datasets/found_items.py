"""What a reader collects: items with unique ids, whose audio is there; what is left out, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mats_core.scoring import Item
from pipelines.evaluate.datasets.folder import Folder


@dataclass
class FoundItems:
    """Items of one folder, as a reader finds them.

    Attributes:
        items: those whose audio is there.
        labels: labels that occur anywhere in the reader's file.
        left_out: (item id, why) of items that cannot be asked.
        records: (item id, the publisher's record) of all items, where a file to submit must repeat them.
        places: item id → where in the reader's file it stands, of those that `check_new` has seen.
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
        question = str(facts.pop("question", "") or "") or definition.question
        self.items.append(
            Item(item_id=item_id, uri=uri, task=definition.task, tag=definition.tag, question=question, **facts)
        )
