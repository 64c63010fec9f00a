"""Files of a benchmark → items, and what is missing to run it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mats_core.errors import SettingsError, got_allowed
from mats_core.scoring import Item, LabelSet
from pipelines.evaluate.datasets import csv_reader, file_name_reader, json_reader, soundworld_reader
from pipelines.evaluate.datasets.definition import Benchmark
from pipelines.evaluate.datasets.folder import NO_AUDIO, Folder, alternatives, open_folder
from pipelines.evaluate.datasets.found_items import Drafts

READERS: dict[str, Callable[[Folder], Drafts]] = {
    "table": csv_reader.read,
    "names": file_name_reader.read,
    "records": json_reader.read,
}
SOUNDWORLD = "soundworld"
_LABELLED = ("label", "labels")


@dataclass
class Reading:
    """What a benchmark's files hold.

    Attributes:
        items: in the order of the publisher's file; ids are unique.
        versions: of each item's audio, as it was listed.
        labels: the label set (kinds ``label`` and ``labels``), else empty.
        left_out: (item id, why): items that the files name but that cannot be asked. A reason is its kind, and after a
            colon what is peculiar to the item.
        records: (item id, the publisher's record) in its order, where a file to submit repeats all of them.
    """

    items: list[Item]
    versions: list[str] = field(default_factory=list)
    labels: LabelSet = field(default_factory=LabelSet)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def read(benchmark: Benchmark, root: str | None, limit: int | None = None) -> Reading:
    """Items of a benchmark whose files lie under ``root``/its folder (a path or fsspec URL).

    Args:
        root: folder of all benchmarks' folders; ``soundworld`` writes its clips there.
        limit: the first so many items only.

    Raises:
        SettingsError: for files that are not there or are not as their publisher ships them (wrong columns,
            duplicate ids, labels outside the label set), naming file, line and what was expected; and when not
            one item is left.
    """
    if root is None:
        raise got_allowed("data", root, f"the folder that holds {benchmark.folder or benchmark.name}/")
    if benchmark.reader == SOUNDWORLD:
        return Reading(*soundworld_reader.read(benchmark, root, limit), soundworld_reader.label_set(benchmark))
    folder = open_folder(benchmark, root)
    drafts = _reader(benchmark)(folder)
    labels = LabelSet()
    if benchmark.kind in _LABELLED:
        labels = benchmark.label_set(benchmark.labels or drafts.labels)
        _check_labels(benchmark, drafts, labels)
    if not drafts.items:
        first = next(iter(drafts.left_out), ("", "its files name none"))
        raise got_allowed(
            f"benchmarks: {benchmark.name}",
            f"{len(drafts.left_out)} items, none that can be asked",
            f"files as their publisher ships them ({first[0]}: {first[1]})",
        )
    items = drafts.items[:limit]
    versions = [folder.versions[item.uri] for item in items]
    return Reading(items, versions, labels, drafts.left_out, drafts.records)


def missing(benchmark: Benchmark, root: str | None) -> list[str]:
    """What is missing to run a benchmark, a sentence each with what to do; empty when it can run."""
    absent: list[str] = []
    if benchmark.reader == SOUNDWORLD:
        return absent
    if benchmark.kind == "caption" and importlib.util.find_spec("aac_metrics") is None:
        absent.append('caption metrics need aac-metrics: pip install "aac-metrics<0.5.5" nltk')
    where = benchmark.folder or benchmark.name
    if root is None:
        return [*absent, f"no --data folder; put its files into DATA/{where}/. Get them: {benchmark.source}"]
    try:
        folder = open_folder(benchmark, root)
    except SettingsError:
        return [*absent, f"no folder {where}/. Get it: {benchmark.source}"]
    for role in benchmark.files:
        if folder.path(role) is None:
            absent.append(
                f"{where}/{' or '.join(alternatives(benchmark, role))} is not there. Get it: {benchmark.source}"
            )
    if len(absent) or not folder.found:
        return absent or [f"{where}/ is empty. Get its files: {benchmark.source}"]
    try:
        left = [pair for pair in read(benchmark, root).left_out if pair[1].startswith(NO_AUDIO)]
    except SettingsError as error:
        return [str(error)]
    return [f"the audio of {len(left)} items is not there, e.g. {left[0][0]}: {left[0][1]}"] if left else []


def _reader(benchmark: Benchmark) -> Callable[[Folder], Drafts]:
    if benchmark.reader not in READERS:
        raise got_allowed(f"benchmarks: {benchmark.name}: reader", benchmark.reader, ", ".join((*READERS, SOUNDWORLD)))
    return READERS[benchmark.reader]


def _check_labels(benchmark: Benchmark, drafts: Drafts, labels: LabelSet) -> None:
    known = set(labels.names)
    for item in drafts.items:
        unknown = [label for label in item.labels if label not in known]
        if unknown or not item.labels:
            raise got_allowed(
                f"benchmarks: {benchmark.name}: label of {item.item_id}",
                ", ".join(unknown) or "none",
                f"one of its {len(known)} labels: {', '.join(labels.names[:8])}{', …' if len(known) > 8 else ''}",
            )
