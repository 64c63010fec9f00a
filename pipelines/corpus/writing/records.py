"""A published clip → its corpus records: a pure function of the clip, its set and the seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from mats_core.model.prompts import family
from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.definition import CorpusSet
from pipelines.corpus.writing.captions import Written, caption
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import TABLES, Entry, entry, key, plain, table
from pipelines.corpus.writing.questions import Question, askable, question
from pipelines.corpus.writing.timeline import Timeline, timeline

RECORD = {
    "caption": "The text that stands for the sound.",
    "instruction": "The question, or empty.",
    "output": "What is to be answered.",
    "task": "Its task, as the paper's records have it.",
    "tag": "What is put into the prompt.",
    "source": "The published set.",
    "id": "The clip's id in it.",
    "split": "The part of the set that the clip is in.",
}
"""The columns of a record, all of them texts → what stands in each."""
COLUMNS = tuple(RECORD)
MOST_LABELS = 10
"""More than these of a clip are not told of: those that sound longest are kept, else those named first."""
OTHER_THAN_LABELS = {"caption": 5, "question": 5}
"""Of a hundred records of a set of labels: the rest asks for the labels. The authors' closed mixture is led by them."""
QUESTION_TASK, QUESTION_TAG = "audio_qa", "[audio qa]"
CAPTION_TAGS = {"caption": "[audio caption]", "music_caption": "[music caption]"}
FEW_LABELS = 25
"""Where a set has no more labels than these, each is near every other."""


def write_records(clip: PublishedClip, definition: CorpusSet, seed: int) -> list[dict[str, str]]:
    """The records of `clip`; the same for the same arguments, whatever else is written, where and in which order.

    A published caption is a record of its own. So is a published question, about one of the clip's captions, or, where
    there is none, a sentence that names its labels; it has no record where neither is known. Of labels alone,
    `definition.records_a_clip` records are written: labels to give, and of some a caption or a question about them.
    """
    said: list[tuple[str, str, str, str, str]] = []
    if definition.publishes == "captions":
        said = [(text, "", text, definition.task, definition.tag) for text in clip.captions]
    elif definition.publishes == "questions":
        for number, asked in enumerate(clip.questions):
            about = _stands_for(clip, definition, Draws(f"{seed}\0{clip.source}\0{clip.id}\0{number}"))
            if about:
                said.append((about, asked.question, asked.answer, asked.task, definition.tag))
    elif clip.labels or clip.events:
        facts = clip_facts(clip, vocabulary(definition))
        for number in range(definition.records_a_clip):
            draws = Draws(f"{seed}\0{clip.source}\0{clip.id}\0{number}")
            said.append(_of_labels(facts, definition, draws))
    return [
        {
            "caption": about, "instruction": instruction, "output": output, "task": task, "tag": tag,
            "source": clip.source, "id": f"{clip.id}#{number}" if number else clip.id, "split": clip.split,
        }
        for number, (about, instruction, output, task, tag) in enumerate(said)
    ]  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a set's labels. by_kin: a group → its labels, which occur near each other."""

    subject: str
    spoken: dict[str, str]
    entries: tuple[Entry, ...]
    by_kin: dict[str, tuple[Entry, ...]]


@dataclass(frozen=True)
class ClipFacts:
    """What the texts about a clip may use.

    labels: all, as published, at most MOST_LABELS. told: those that a caption names, without what another of them
    implies. answers: the words for `labels`. times: None where the set tells none. level: of `PublishedClip`.
    """

    labels: tuple[str, ...]
    told: tuple[Entry, ...]
    answers: tuple[str, ...]
    times: Timeline | None
    level: str
    vocabulary: Vocabulary


_VOCABULARIES: dict[int, tuple[CorpusSet, Vocabulary]] = {}


def vocabulary(definition: CorpusSet) -> Vocabulary:
    """The vocabulary of a set, made once for a definition."""
    found = _VOCABULARIES.get(id(definition))
    if found is None or found[0] is not definition:
        if len(_VOCABULARIES) > 64:
            _VOCABULARIES.clear()
        found = _VOCABULARIES[id(definition)] = (definition, _vocabulary(definition))
    return found[1]


def _vocabulary(definition: CorpusSet) -> Vocabulary:
    subject = definition.subject
    known = tuple(entry(subject, label) for label in definition.labels) or tuple(table(TABLES[subject][0]).values())
    by_kin: dict[str, list[Entry]] = {}
    for each in known if len(known) > FEW_LABELS else ():
        for group in each.kin or (each.role,):
            by_kin.setdefault(group, []).append(each)
    return Vocabulary(subject, definition.spoken, known, {group: tuple(all_) for group, all_ in by_kin.items()})


def clip_facts(clip: PublishedClip, words: Vocabulary) -> ClipFacts:
    """What may be said of a clip that has labels, with times or without."""
    times = timeline(clip.events) if clip.events else None
    labels = tuple(dict.fromkeys([event.label for event in clip.events] or clip.labels))
    if len(labels) > MOST_LABELS:
        lasts = dict.fromkeys(labels, 0.0)
        for event in clip.events:
            lasts[event.label] += event.end_s - event.start_s
        longest = set(sorted(labels, key=lambda label: -lasts[label])[:MOST_LABELS])
        labels = tuple(label for label in labels if label in longest)
    told = [entry(words.subject, label) for label in labels]
    if times is None and len(told) > 1:
        implied = set().union(*(ancestors(each.key) for each in told))
        told = [each for each in told if each.key not in implied] or told
    return ClipFacts(labels, tuple(told), tuple(answer_words(labels, words.spoken)), times, clip.level, words)


@cache
def ancestors(of: str) -> frozenset[str]:
    """Keys of the labels that a sound's label implies: of "bark" those of "dog", "animal", …"""
    found = table("sound").get(of)
    up = [group for group in found.kin if group in table("sound")] if found else []
    return frozenset(up).union(*(ancestors(group) for group in up))


def answer_words(labels: Sequence[str], spoken: Mapping[str, str]) -> list[str]:
    """The words for labels in an answer. Among several, commas part them, so a name is cut at its own first one."""
    words = [spoken.get(label) or _name(label) for label in labels]
    return words if len(words) == 1 else [shortened(each) for each in words]


@cache
def _name(label: str) -> str:
    """A label as it is written, less what is no part of its name; tags that run words together (MTG-Jamendo's
    "genre---drumnbass", "instrument---electricguitar") as the tables say them."""
    said = table("music").get(key(label)) if "---" in label else None
    if said is not None and said.role in ("genre", "with"):
        return said.word or re.sub("^(an?|the) ", "", said.phrases[0].noun)
    return plain(label)


@cache
def shortened(name: str) -> str:
    """A name without commas: "male speech" for "male speech, man speaking"."""
    name = re.sub(r" \([^)]*,[^)]*\)", "", name)
    first, _, rest = name.partition(",")
    return f"{first}{rest.replace(',', '')}" if first in ("inside", "outside", "channel") else first


def _stands_for(clip: PublishedClip, definition: CorpusSet, draws: Draws) -> str:
    if clip.captions:
        return draws.pick(clip.captions)
    if not clip.labels and not clip.events:
        return ""
    return _caption(clip_facts(clip, vocabulary(definition)), draws).text


def _caption(facts: ClipFacts, draws: Draws, counted: str = "") -> Written:
    return caption(facts.told, facts.times, facts.level, draws, counted)


def _of_labels(facts: ClipFacts, definition: CorpusSet, draws: Draws) -> tuple[str, str, str, str, str]:
    """Caption, instruction, output, task and tag of one record."""
    leads = "labels" if family(definition.task) == "cla_label" else "caption"
    drawn = draws.below(100) - OTHER_THAN_LABELS["question"]
    if drawn < 0:
        asked = _question(facts, draws)
        return _caption(facts, draws, asked.counted).text, asked.question, asked.answer, QUESTION_TASK, QUESTION_TAG
    about = _caption(facts, draws).text
    if leads == "labels" and drawn >= OTHER_THAN_LABELS["caption"]:
        return about, "", ", ".join(facts.answers), definition.task, definition.tag
    other = about
    for _ in range(4):  # another sentence, not the same once more
        if other == about:
            other = _caption(facts, draws).text
    if leads == "caption":
        return about, "", other, definition.task, definition.tag
    task = "music_caption" if facts.vocabulary.subject in ("genre", "music") else "caption"
    return about, "", other, task, CAPTION_TAGS[task]


def _question(facts: ClipFacts, draws: Draws) -> Question:
    words, times = facts.vocabulary, facts.times
    often, first = [], ""
    if times is not None:
        often = [(each, times.times[label]) for label, each in zip(facts.labels, facts.told, strict=True)]
        told = times.phases[0].labels if len(times.phases) > 1 else ()
        if told == (times.first,) and times.first in facts.labels:  # else no caption tells it
            first = facts.answers[facts.labels.index(times.first)]
    return question(words.subject, facts.told, facts.answers, near(facts), often, first, draws)


def near(facts: ClipFacts) -> list[Entry]:
    """Labels that the clip has not, though it might: of a group with one that it has, and not implied by one, said with
    the same words, or a kind of one of which no kind is named. Of all labels, where no group has any."""
    words = facts.vocabulary
    present = [entry(words.subject, label) for label in facts.labels]
    groups = [group for each in present for group in (each.kin or (each.role,))]
    siblings = {each.label: each for group in groups for each in words.by_kin.get(group, ())}
    keys, last = {each.key for each in present}, {each.key for each in facts.told}
    implied = set().union(*(ancestors(each) for each in keys))
    named = [each.content for each in present]

    def absent(candidate: Entry) -> bool:
        own = candidate.content
        return (
            askable(candidate)
            and candidate.key not in keys | implied
            and not ancestors(candidate.key) & last
            and not any(own <= other or other <= own for other in named)
        )

    return list(filter(absent, siblings.values())) or list(filter(absent, words.entries))
