"""The files of a data set → its items, the file for its judge, and what is missing to evaluate it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.scoring import Answers, Item, LabelSet
from mats_core.scoring.chat import air_bench_lines
from mats_core.scoring.choices import mmau_records
from mats_core.storage.uris import Uri
from pipelines.evaluate.datasets import corrections_reader, readers
from pipelines.evaluate.datasets.definition import AIR_BENCH, MMAU, EvaluationSet
from pipelines.evaluate.datasets.folder import NO_AUDIO, Folder, FoundItems
from pipelines.published.folder import AS_PUBLISHED, list_folder
from pipelines.published.layouts import NameLayout
from pipelines.settings.base import Settings

READERS: dict[str, Callable[[Folder], FoundItems]] = {
    "table": readers.read_table,
    "names": readers.read_names,
    "records": readers.read_records,
    "corrections": corrections_reader.read,
}
OPTIONS: dict[str, type[Settings]] = {
    "table": readers.TableOptions,
    "records": readers.RecordOptions,
    "names": NameLayout,
}
"""What the readers that a data set of one's own can have take as `options`."""
SOUNDWORLD = "soundworld"


@dataclass
class LoadedSet:
    """A data set with its items, ready to be asked: in the order of the publisher's file, with unique ids.

    versions: of each item's audio, as listed. labels: the label set (kinds ``label`` and ``labels``), else empty.
    left_out: (item id, why) of items that the files name but that cannot be asked; a reason is its kind, and after a
    colon what is peculiar to the item. records: (item id, the publisher's record), where a file to submit repeats all.
    shortfall: how many items were found, of how many, and where one looked; empty where all are there, and where no
    more were asked for. limited: how many of how many those are; empty where all are asked.
    """

    definition: EvaluationSet
    items: list[Item]
    versions: list[str] = field(default_factory=list)
    labels: LabelSet = field(default_factory=LabelSet)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    shortfall: str = ""
    limited: str = ""

    @property
    def partial(self) -> str:
        """What must stand beside figures that are of a part of the data set alone; empty where they are of all."""
        return self.shortfall or self.limited

    @property
    def name(self) -> str:
        """Its short name, as in --benchmarks."""
        return self.definition.name

    def judge_file(self, answers: Answers, seed: int = 0) -> tuple[str, str] | None:
        """(file name, text) for a publisher's own judge, or None: JSON lines that AIR-Bench's score_chat.py reads;
        all records of MMAU's test part, whose answers are withheld, with ``model_prediction``."""
        if self.definition.judge == AIR_BENCH:
            return "Chat_result_modelx.jsonl", air_bench_lines(self.items, answers)
        if self.definition.judge == MMAU:
            return f"{self.name}_predictions.json", mmau_records(self.records, self.items, answers, seed)
        return None


def load_items(definition: EvaluationSet, root: Uri, limit: int | None = None) -> LoadedSet:
    """The first `limit` items of a data set whose files lie under ``root``/its folder (a path or fsspec URL).

    ``soundworld`` writes its clips there. Raises SettingsError for files that are not there or are not as their
    publisher ships them, naming file, line and what was expected; and when not one item is left.
    """
    if definition.reader == SOUNDWORLD:
        storage.make_dirs(storage.join(root, definition.folder or definition.name))
    folder = Folder(definition, *list_folder(definition, root))
    if definition.reader == SOUNDWORLD:
        from pipelines.evaluate.datasets import soundworld_reader  # its synthesis needs scipy

        found = soundworld_reader.read(folder, limit)
    elif definition.reader in READERS:
        found = READERS[definition.reader](folder)
    else:
        remedy = f"choose one of {', '.join((*READERS, SOUNDWORLD))}"
        raise folder.wrong("reader", f'"{definition.reader}" is not a reader', remedy)
    labels = LabelSet()
    if definition.kind in ("label", "labels"):
        labels = definition.label_set(definition.labels or found.labels)
        _check_labels(found, labels)
    if not found.items:
        item_id, why = next(iter(found.left_out), ("", "its files name none"))
        problem = f"{len(found.left_out)} items, none that can be asked ({item_id}: {why})"
        raise SettingsError(f"benchmarks: {definition.name}", problem, f"get its files: {definition.source}")
    missed = _shortfall(found) if limit is None or len(found.items) < limit else ""
    items = found.items[:limit]
    versions = [folder.versions[item.uri] for item in items]
    limited = "" if missed else _limited(found, len(items))
    return LoadedSet(definition, items, versions, labels, found.left_out, found.records, missed, limited)


def _limited(found: FoundItems, asked: int) -> str:
    """What there is to say where `asked` items are fewer than there are, since no more were wanted."""
    named = len(found.items) + len(found.left_out)
    if asked >= max(len(found.items), found.folder.definition.expected - len(found.left_out)):
        return ""
    return (
        f"the first {asked:,} of {_whole(found.folder.definition, named)} items (--limit); figures are of these alone"
    )


def _whole(definition: EvaluationSet, named: int) -> str:
    """How many items a data set has, in words; named: by its files."""
    return f"{named:,}" if named >= definition.expected else definition.size


def _shortfall(found: FoundItems) -> str:
    """What there is to say where items are not there: their audio, or their line in the publisher's file."""
    definition, where = found.folder.definition, storage.public_uri(found.folder.uri)
    silent = [pair for pair in found.left_out if pair[1].startswith(NO_AUDIO)]
    named = len(found.items) + len(found.left_out)
    whole = _whole(definition, named)
    if not silent and named >= definition.expected:
        return ""
    why = f"not there, for one: {silent[0][1].partition(': ')[2]}" if silent else "its files name no more"
    there = len(found.items) if silent else named
    return f"{there:,} of {whole} items were found in {where} ({why}); figures are of these alone"


def missing(definition: EvaluationSet, root: Uri) -> list[str]:
    """What is missing to evaluate a data set, a sentence each with what to do; empty when nothing is."""
    absent: list[str] = []
    if definition.reader == SOUNDWORLD:
        return absent
    if definition.kind == "caption" and importlib.util.find_spec("aac_metrics") is None:
        absent.append('caption metrics need aac-metrics: pip install "aac-metrics<0.5.5" nltk')
    where = definition.folder or definition.name
    try:
        folder = Folder(definition, *list_folder(definition, root))
    except SettingsError:
        return [*absent, f"no folder {where}/. Get it: {definition.source}"]
    for role in definition.files:
        if folder.path(role) is None:
            names = " or ".join(definition.paths(role))
            absent.append(f"{where}/{names} is not there. Get it: {definition.source}")
    if absent or not folder.found:
        return absent or [f"{where}/ is empty. Get its files: {definition.source}"]
    try:
        left = [pair for pair in load_items(definition, root).left_out if pair[1].startswith(NO_AUDIO)]
    except SettingsError as error:
        return [str(error)]
    return [f"the audio of {len(left)} items is not there, e.g. {left[0][0]}: {left[0][1]}"] if left else []


def _check_labels(found: FoundItems, labels: LabelSet) -> None:
    """Raise SettingsError for the first item without a label, or with one that is not in the set."""
    known = set(labels.names)
    for item in found.items:
        unknown = [label for label in item.labels if label not in known]
        if unknown or not item.labels:
            first = f"{', '.join(labels.names[:8])}{', …' if len(known) > 8 else ''}"
            given = f'"{", ".join(unknown)}" is not one' if unknown else "it has none"
            problem = f"{given} of the {len(known)} labels {first}"
            raise found.folder.wrong(f"label of {item.item_id}", problem, AS_PUBLISHED)
