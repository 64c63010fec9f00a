"""Items in the making: unique ids, audio found or the item left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mats_core.scoring import Item
from pipelines.evaluate.datasets.folder import Folder


@dataclass
class Drafts:
    """What a reader found: items with audio, labels that occur anywhere in its file, and what was left out.

    records: (item id, the publisher's record) of all items, where a file to submit must repeat them.
    """

    items: list[Item] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def once(self, folder: Folder, where: str, item_id: str) -> None:
        """Raise SettingsError when an id was met before."""
        if item_id in self.seen:
            raise folder.wrong(where, item_id, f"ids that are there once; this one is also at {self.seen[item_id]}")
        self.seen[item_id] = where

    def add(self, folder: Folder, item_id: str, fields: Mapping[str, Any], **facts: Any) -> None:
        """An item whose audio is looked up by the definition's patterns; without audio it is left out."""
        benchmark = folder.benchmark
        uri, why = folder.audio(fields)
        if uri is None:
            self.left_out.append((item_id, why))
            return
        question = str(facts.pop("question", "") or "") or benchmark.question
        self.items.append(
            Item(item_id=item_id, uri=uri, task=benchmark.task, tag=benchmark.tag, question=question, **facts)
        )
