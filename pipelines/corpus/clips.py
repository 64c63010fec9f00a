"""What a publisher tells of one clip, whatever the layout of its files: what readers make and text is written from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A label with its times. start_s, end_s: seconds in the clip."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A published question with its answer. task: the record's task, a name of `mats_core.model.prompts.FAMILIES`."""

    question: str
    answer: str
    task: str


@dataclass(frozen=True, slots=True)
class PublishedClip:
    """One clip of a set. id: the publisher's, unique in its set. source: name of the set. labels: names as published
    (display names where the set has codes), each once. events: where the set tells times, in the order of their
    start. level: "foreground" or "background", where the set tells that of its one label."""

    id: str
    source: str
    split: str
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    captions: tuple[str, ...] = ()
    questions: tuple[Asked, ...] = ()
    level: str = ""
