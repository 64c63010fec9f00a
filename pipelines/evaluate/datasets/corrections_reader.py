"""Reader `corrections`: what people put right, or marked right, in the answers of a run, whose OUTPUT is the root."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mats_core import storage
from mats_core.errors import StorageError
from mats_core.scoring import Item
from pipelines.evaluate.datasets.folder import NO_AUDIO, Folder, FoundItems
from pipelines.output.corrections import read_corrections, truths
from pipelines.settings.base import Settings


class CorrectionOptions(Settings):
    """What is asked of an item."""

    question: str = Field("", description="`question` where each item has its own.")


def read(folder: Folder) -> FoundItems:
    """An item for each answer to the definition's task of which the truth is known; its stretch of the file is asked.

    Of kind `caption` the truth is a reference, of `label` the label, of `labels` the labels between its commas.
    """
    definition, options = folder.definition, folder.options(CorrectionOptions)
    output = folder.uri.rstrip("/").rpartition("/")[0] or "."
    found = FoundItems(folder)
    for each, truth in sorted(
        truths(read_corrections(output).values(), definition.task), key=lambda one: one[0].row_id
    ):
        item_id = str(each.row_id)
        try:
            folder.versions[each.uri] = storage.stat(each.uri).version
        except StorageError:
            found.left_out.append((item_id, f"{NO_AUDIO}: {storage.public_uri(each.uri)}"))
            continue
        labels = _labels(definition.kind, truth)
        found.labels += [label for label in labels if label not in found.labels]
        facts: dict[str, Any] = {"labels": labels} if labels else {"references": (truth,)}
        question = (each.question or "") if options.question else definition.question
        facts |= {"only_channel": each.only_channel, "start_s": each.start_s}
        facts["end_s"] = each.start_s + each.duration_s if each.duration_s else None
        found.items.append(Item(item_id, each.uri, definition.task, question, definition.tag, **facts))
    found.labels.sort()
    return found


def _labels(kind: str, truth: str) -> tuple[str, ...]:
    if kind == "labels":
        return tuple(dict.fromkeys(label for each in truth.split(",") if (label := each.strip(" .").lower())))
    return (truth.strip(" .").lower(),) if kind == "label" else ()
