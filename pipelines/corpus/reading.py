"""The clips of a set that a corpus is made of: those of its training part that no evaluation set asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import hash_settings
from mats_core.storage.uris import Uri
from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.definition import CorpusSet, load_corpus_set
from pipelines.corpus.readers import READERS
from pipelines.evaluate.datasets import asked_ids, list_evaluation_sets, load_evaluation_set
from pipelines.published.folder import Folder, open_folder
from pipelines.published.origins import has_origins

MOST_NAMED = 1000
"""Clips left out that are named; the counts go on."""
TOO_MANY = 1.25
"""Clips that a set may have, in those that it is known to have: with more it is another release."""


@dataclass(frozen=True)
class AskedClips:
    """What evaluation asks. ids: where clips come from → id there → the evaluation sets that ask the clip. unknown:
    evaluation sets that have ids there, and whose files are not under the data root: place → names."""

    ids: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_asked(root: Uri) -> AskedClips:
    """What the evaluation sets whose files lie under ``root`` ask. Raises SettingsError for files that are wrong."""
    ids: dict[str, dict[str, tuple[str, ...]]] = {}
    unknown: dict[str, tuple[str, ...]] = {}
    for definition in map(load_evaluation_set, list_evaluation_sets()):
        if not definition.origin:
            continue
        found = asked_ids(definition, root)
        for place in definition.origin:
            if found is None:
                unknown[place] = (*unknown.get(place, ()), definition.name)
                continue
            there = ids.setdefault(place, {})
            for each in found.get(place, ()):
                there[each] = (*there.get(each, ()), definition.name)
    return AskedClips(ids, unknown)


@dataclass
class Tally:
    """What was found in a set. clips: of its training part. used: those that records are made of, `records` of them
    published or to be written. left_out: evaluation set → clips that it asks; named: the ids of the first MOST_NAMED.
    empty: clips without a label, caption or question; silent: questions whose sound no text is known of."""

    clips: int = 0
    used: int = 0
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    silent: int = 0
    named: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, clip_id: str, asking: str) -> None:
        """Count a clip that an evaluation set asks."""
        self.left_out[asking] += 1
        if self.left_out[asking] <= MOST_NAMED:
            self.named.setdefault(asking, []).append(clip_id)

    def told(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "left_out": dict(self.left_out)}

    @staticmethod
    def of(told: Mapping[str, Any]) -> Tally:
        """The inverse of `told`."""
        return Tally(**{**told, "left_out": Counter(told["left_out"])})


def missing(definition: CorpusSet, root: Uri) -> list[str]:
    """What is missing under ``root`` to read a set, a sentence each; empty when nothing is."""
    where = definition.folder or definition.name
    try:
        folder = open_folder(definition, root)
    except SettingsError:
        return [f"no folder {where}/. Get it: {definition.source}"]
    optional = {*definition.options.get("optional", ()), *(("names",) if definition.reader == "names" else ())}
    absent = [
        f"{where}/{' or '.join(definition.paths(role))} is not there. Get it: {definition.source}"
        for role in definition.files
        if role not in optional and folder.path(role) is None
    ]
    return absent or ([] if folder.found else [f"{where}/ is empty. Get its files: {definition.source}"])


def fingerprint(definition: CorpusSet, root: Uri, asked: AskedClips) -> str:
    """Changes when the records of a set would: with its definition, its files, and what evaluation asks."""
    told: list[Any] = [definition.model_dump(), {place: sorted(ids.items()) for place, ids in asked.ids.items()}]
    for each in (definition, *map(load_corpus_set, definition.text_from)):
        try:
            folder = open_folder(each, root)
        except SettingsError:
            continue
        paths = sorted({*filter(None, map(folder.path, each.files)), each.origin_file} & set(folder.found))
        paths = paths or sorted(folder.found)  # names of files are all that is read
        told.append([(path, folder.versions[folder.found[path]]) for path in paths])
    return hash_settings(told)[:24]


def read_clips(definition: CorpusSet, root: Uri, asked: AskedClips, tally: Tally) -> Iterator[PublishedClip]:
    """The clips of a set that records are made of, in the order of its files; counts in `tally` what it meets.

    Raises SettingsError for files that are not there or not as their publisher ships them, for ids that come twice,
    for labels that are none of the set's, and at the end for another release of the set.
    """
    folder = open_folder(definition, root)
    known = _closed_labels(definition)
    texts = _texts(definition, root)
    seen: set[str] = set()
    for clip, origin in READERS[definition.reader](folder):
        if clip.id in seen:
            problem = f"the id {clip.id} comes twice, where each clip has one of its own"
            raise folder.wrong("id", problem)
        seen.add(clip.id)
        tally.clips += 1
        unknown = [label for label in clip.labels if label not in known] if known else []
        if unknown:
            problem = f'"{unknown[0]}" is not one of the {len(known)} labels {", ".join(sorted(known)[:8])}, …'
            raise folder.wrong(f"label of {clip.id}", problem)
        asking = _asking(definition, origin, asked)
        if asking is not None:
            tally.leave_out(clip.id, asking)
            continue
        if definition.publishes == "questions" and clip.questions and not clip.captions:
            clip = _with_text(clip, origin, texts)
            if not (clip.captions or clip.labels):
                tally.silent += 1
                continue
        written = _written(clip, definition)
        if not written:
            tally.empty += 1
            continue
        tally.used += 1
        tally.records += written
        yield clip
    _check_release(folder, tally)


def _asking(definition: CorpusSet, origin: Mapping[str, str], asked: AskedClips) -> str | None:
    """The evaluation set that asks a clip, the first of several; None where none does."""
    own = definition.name if definition.asked_whole else None
    names = (name for place, each in origin.items() for name in asked.ids.get(place, {}).get(each, ()))
    return next((name for name in names if name != own), None)


def _written(clip: PublishedClip, definition: CorpusSet) -> int:
    """How many records a clip makes."""
    if definition.publishes == "captions":
        return len(clip.captions)
    if definition.publishes == "questions":
        return len(clip.questions)
    return definition.records_a_clip if clip.labels else 0


def _closed_labels(definition: CorpusSet) -> frozenset[str]:
    """The labels a clip may have; none where a file of the set tells them, or it has no such list."""
    told = {"labels", "genres"} & set(definition.files)
    return frozenset() if told else frozenset(definition.labels)


Texts = Mapping[tuple[str, str], PublishedClip]


def _texts(definition: CorpusSet, root: Uri) -> Texts:
    """(place, id there) → a clip with captions or labels, of the sets that stand for the sound of this one's clips."""
    found: dict[tuple[str, str], PublishedClip] = {}
    for other in map(load_corpus_set, definition.text_from):
        if missing(other, root):
            continue
        for clip, origin in READERS[other.reader](open_folder(other, root)):
            for key in origin.items():
                found.setdefault(key, clip)
    return found


def _with_text(clip: PublishedClip, origin: Mapping[str, str], texts: Texts) -> PublishedClip:
    """A clip with captions or labels that another set has of it, where one has."""
    for key in origin.items():
        other = texts.get(key)
        if other is not None and (other.captions or other.labels):
            return replace(clip, captions=other.captions, labels=other.labels, events=other.events)
    return clip


def _check_release(folder: Folder, tally: Tally) -> None:
    """SettingsError where a set has no clips, or as many as another release of it has."""
    definition = folder.definition
    assert isinstance(definition, CorpusSet)
    expected = f"{definition.counted('clips')} are expected ({definition.split}; {definition.source})"
    other = definition.other_releases.get(tally.clips)
    if other is not None:
        raise folder.wrong("files", f"{tally.clips:,} clips, as {other} has", f"{expected}: get that release")
    if tally.clips > TOO_MANY * definition.clips:
        raise folder.wrong("files", f"{tally.clips:,} clips, more than it has", f"{expected}: get that release")
    if not tally.clips:
        raise folder.wrong("files", f"no clip of its training part ({definition.split})", expected)
    if not tally.used and tally.silent:
        needed = ", ".join(definition.text_from)
        problem = f"no text is known that stands for the sound of its {tally.silent:,} questions"
        raise folder.wrong("text", problem, f"put the files of {needed}, which have the same clips, beside it")
    if not tally.used:
        problem = f"none of its {tally.clips:,} clips makes a record: {tally.empty:,} have no label or text"
        raise folder.wrong("files", f"{problem}, evaluation asks {sum(tally.left_out.values()):,}", expected)


def unchecked(definition: CorpusSet, root: Uri, asked: AskedClips) -> list[str]:
    """The evaluation sets that may ask clips of a set and could not be asked for their ids."""
    if not definition.origin:
        return []
    others = {name for place in definition.origin for name in asked.unknown.get(place, ())} - {definition.name}
    if not has_origins(open_folder(definition, root)):
        others |= {name for place in definition.origin for names in asked.ids.get(place, {}).values() for name in names}
    return sorted(others)
