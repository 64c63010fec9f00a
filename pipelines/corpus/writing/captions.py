"""Sentences that say what is heard: of sounds and their order, of places, of how someone speaks, of instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pipelines.corpus.writing import patterns
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.music import music_caption, note_caption
from pipelines.corpus.writing.phrases import Entry, Phrase, article, capital, listed, pick_pattern
from pipelines.corpus.writing.timeline import Phase, Timeline

MOST_PHASES = 4
"""More phases than these are not told one by one."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Written(NamedTuple):
    """A text and the pattern it was made with."""

    text: str
    pattern: str


def caption(entries: Sequence[Entry], times: Timeline | None, level: str, draws: Draws, counted: str = "") -> Written:
    """A sentence that names every one of `entries` (one to ten), and their order in time where `times` has it.

    level: "foreground" or "background", where that is known of the one sound. counted: the label of which is said how
    often it is heard; where none is named, that is told now and then.
    """
    role = entries[0].role
    if role == "place":
        pattern = draws.pick(patterns.SCENE)
        nouns = listed([each.phrases[0].noun for each in entries])
        return _sentence(pattern, n=nouns, p=listed([each.word for each in entries]))
    if role == "emotion":
        word = listed([each.word for each in entries])
        manner, feeling = (listed([getattr(each, name) for each in entries]) for name in ("manner", "feeling"))
        return _sentence(draws.pick(patterns.EMOTION), a=word, an_a=article(word), m=manner, f=feeling)
    roles = {each.role for each in entries}
    if not roles <= {"sound", "with"}:
        written = note_caption(entries, draws) if "effect" in roles or roles == {"adjective", "with"} else None
        return Written(*(written or music_caption(entries, draws)))
    said = _wordings(entries, draws)
    if level and len(said) == 1:
        only = next(iter(said.values()))
        where = f" in the {level}"
        return _one(replace(only, noun=only.noun + where, clause=only.clause + where), draws)
    if times is None or not times.phases:
        return _untimed(list(said.values()), draws)
    return _timed(said, times, draws, counted)


def _wordings(entries: Sequence[Entry], draws: Draws) -> dict[str, Phrase]:
    """Label → how it is said here; without labels whose every wording is said of another already."""
    said: dict[str, Phrase] = {}
    nouns: set[str] = set()
    for each in entries:
        left = [option for option in each.phrases if option.noun not in nouns]
        if left:
            said[each.label] = draws.pick(left)
            nouns.add(said[each.label].noun)
    return said


def times_word(number: int) -> str:
    """How often: "once", "twice", "three times"."""
    if number < 3:
        return "once" if number == 1 else "twice"
    return f"{NUMBERS[number]} times" if number < len(NUMBERS) else f"{number} times"


def _sentence(pattern: str, **words: str) -> Written:
    return Written(capital(pattern.format(**words)), pattern)


def _clause(phrases: Sequence[Phrase]) -> str:
    return phrases[0].clause if len(phrases) == 1 else f"{listed([each.noun for each in phrases])} can be heard"


def _untimed(phrases: list[Phrase], draws: Draws) -> Written:
    if len(phrases) == 1:
        return _one(phrases[0], draws)
    nouns = [each.noun for each in draws.shuffled(phrases)]
    all_ = listed(nouns)
    return _sentence(pick_pattern(patterns.SEVERAL, all_, draws), l=all_, a=nouns[0], rest=listed(nouns[1:]))


def _one(said: Phrase, draws: Draws) -> Written:
    be = "are" if said.plural else "is"
    return _sentence(pick_pattern(patterns.ONE, said.noun, draws), n=said.noun, c=said.clause, be=be)


def _timed(said: dict[str, Phrase], times: Timeline, draws: Draws, counted: str) -> Written:
    """What is told of `times`, as far as it is about the labels in `said`."""
    phases: list[Phase] = []
    for phase in times.phases:
        kept = _kept(phase.labels, said)
        if kept and not (phases and phases[-1].labels == kept):  # a sound that comes again at once is one phase
            phases.append(Phase(kept, phase.together))
    constant = [said[label] for label in _kept(times.throughout, said)]
    if not phases:
        return _untimed(list(said.values()), draws)
    if len(phases) == 1:
        written = _one_phase([said[label] for label in phases[0].labels], phases[0].together, draws)
    elif len(phases) <= MOST_PHASES:
        written = _phases(phases, said, draws)
    else:
        written = _beginning(phases, said, draws)
    if constant:
        pattern = draws.pick(patterns.THROUGHOUT)
        nouns = listed([each.noun for each in constant])
        text = pattern.format(s=written.text.removesuffix("."), l=nouns, c_l=_clause(constant))
        written = Written(text, f"{written.pattern} {pattern}")
    often = [label for label in said if times.times.get(label, 0) > 1]
    if counted not in said and often and draws.below(2):
        counted = draws.pick(often)
    if counted in said:
        pattern, be = draws.pick(patterns.TIMES), "are" if said[counted].plural else "is"
        added = _sentence(pattern, n=said[counted].noun, be=be, times=times_word(times.times[counted]))
        written = Written(f"{written.text} {added.text}", f"{written.pattern} {pattern}")
    return written


def _kept(labels: Sequence[str], said: dict[str, Phrase]) -> tuple[str, ...]:
    return tuple(label for label in labels if label in said)


def _one_phase(phrases: list[Phrase], together: bool, draws: Draws) -> Written:
    if len(phrases) == 1 or not together:
        return _untimed(phrases, draws)
    phrases = draws.shuffled(phrases)
    nouns = [each.noun for each in phrases]
    return _sentence(
        draws.pick(patterns.TOGETHER), l=listed(nouns), a=nouns[0], rest=listed(nouns[1:]),
        c_a=phrases[0].clause, c_rest=_clause(phrases[1:]),
    )  # fmt: skip


def _phases(phases: list[Phase], said: dict[str, Phrase], draws: Draws) -> Written:
    nouns, clauses = [], []
    seen: set[str] = set()
    for phase in phases:
        again = [label in seen for label in phase.labels]
        tails = [" again" if each else "" for each in again]
        nouns.append(listed([said[label].noun + tail for label, tail in zip(phase.labels, tails, strict=True)]))
        only = len(phase.labels) == 1
        clauses.append(said[phase.labels[0]].clause + tails[0] if only else f"{nouns[-1]} can be heard")
        seen.update(phase.labels)
    if len(phases) == 2:
        a, b = nouns
        return _sentence(draws.pick(patterns.THEN), a=a, b=b, c_a=clauses[0], c_b=clauses[1])
    pattern = draws.pick(patterns.THREE if len(phases) == 3 else patterns.IN_TURN)
    middle, c_middle = ", then ".join(nouns[1:-1]), ", then ".join(clauses[1:-1])
    return _sentence(
        pattern, a=nouns[0], middle=middle, z=nouns[-1], c_a=clauses[0], c_middle=c_middle, c_z=clauses[-1]
    )


def _beginning(phases: list[Phase], said: dict[str, Phrase], draws: Draws) -> Written:
    first = [said[label] for label in phases[0].labels]
    later = dict.fromkeys(label for phase in phases[1:] for label in phase.labels if label not in phases[0].labels)
    if not later:
        return _untimed(first, draws)
    nouns = listed([each.noun for each in first])
    rest = listed([said[label].noun for label in later])
    return _sentence(draws.pick(patterns.FIRST), a=nouns, l=rest, c_a=_clause(first))
