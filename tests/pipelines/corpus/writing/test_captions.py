"""Sentences name every label, tell an order that is true, and vary."""

from __future__ import annotations

import random
import re

import pytest

from pipelines.corpus.clips import Event, PublishedClip
from pipelines.corpus.definition import CorpusSet, list_corpus_sets, load_corpus_set
from pipelines.corpus.writing.captions import Written, caption, times_word
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import entry
from pipelines.corpus.writing.records import clip_facts, vocabulary
from pipelines.corpus.writing.timeline import timeline
from pipelines.corpus.writing.variety import Variety

LABELLED = [name for name in list_corpus_sets() if load_corpus_set(name).publishes == "labels"]
DOG, RAIN, BELL = "Bark", "Rain", "Church bell"
WORDS = {DOG: re.compile("bark|dog"), RAIN: re.compile("rain"), BELL: re.compile("bell")}


def told(*rows: tuple[str, float, float], number: int = 300, counted: str = "") -> list[str]:
    events = [Event(*row) for row in rows]
    entries = [entry("sound", label) for label in dict.fromkeys(row[0] for row in rows)]
    return [caption(entries, timeline(events), "", Draws(str(at)), counted).text for at in range(number)]


def order(text: str) -> list[str]:
    """Labels by where they are first named."""
    found = {label: match.start() for label, pattern in WORDS.items() if (match := pattern.search(text.lower()))}
    return sorted(found, key=lambda label: found[label])


def test_what_follows_is_said_to_follow() -> None:
    for text in told((DOG, 0, 1), (BELL, 2, 3)):
        backwards = re.search(r"\bafter (?!that)", text) and not text.startswith("After")
        assert order(text) == ([BELL, DOG] if backwards else [DOG, BELL]), text
        assert re.search(r"(?i)\b(then|after|before|first|followed|later|ends|once|begins)\b", text), text


def test_three_in_turn_are_named_in_their_order() -> None:
    texts = told((BELL, 0, 1), (RAIN, 2, 3), (DOG, 4, 5))
    assert all(order(text) == [BELL, RAIN, DOG] for text in texts)
    assert len(set(texts)) > 60


def test_what_overlaps_is_not_put_in_an_order() -> None:
    for text in told((DOG, 0, 3), (BELL, 1, 4)):
        assert set(order(text)) == {DOG, BELL}
        assert not re.search(r"\b(then|after|before|first|followed|later)\b", text), text
    assert any("while" in text for text in told((DOG, 0, 3), (BELL, 1, 4)))


def test_a_sound_throughout_is_said_to_be_there_all_the_time() -> None:
    for text in told((RAIN, 0, 10), (DOG, 1, 2), (BELL, 5, 6)):
        assert set(order(text)) == {DOG, RAIN, BELL}
        assert re.search(r"(?i)\b(throughout|all along|the whole time|beginning to end|all the while)\b", text), text


def test_a_sound_that_comes_again_is_said_to() -> None:
    texts = told((DOG, 0, 1), (BELL, 2, 3), (DOG, 4, 5))
    assert all(" again" in text for text in texts)
    assert 0.3 < sum("twice" in text for text in texts) / len(texts) < 0.7  # now and then
    assert all("twice" in text for text in told((DOG, 0, 1), (BELL, 2, 3), (DOG, 4, 5), counted=DOG))
    assert all("once" in text for text in told((DOG, 0, 1), (BELL, 2, 3), (DOG, 4, 5), counted=BELL))
    assert [times_word(number) for number in (1, 2, 3, 10, 14)] == [
        "once",
        "twice",
        "three times",
        "ten times",
        "14 times",
    ]


def test_of_many_phases_the_beginning_is_told() -> None:
    rows = [(RAIN if at % 2 else DOG, float(at), at + 0.5) for at in range(8)]
    for text in told(*rows):
        assert order(text) == [DOG, RAIN], text


def test_loudness_is_told_only_where_it_is_known() -> None:
    entries = [entry("sound", "dog_bark")]
    for at in range(100):
        assert " in the background" in caption(entries, None, "background", Draws(str(at))).text
    loud = re.compile(r"(?i)\b(loud|quiet|faint|soft|distant|near|background|foreground)")
    for name in ("audioset_strong", "fsd50k", "vggsound", "esc50", "dcase2017"):
        for label in load_corpus_set(name).labels:
            text = caption([entry("sound", label)], None, "", Draws(label)).text
            assert not loud.search(text) or loud.search(label), text


def written(definition: CorpusSet, number: int = 1500) -> list[Written]:
    """Captions of made-up clips: one to ten labels where clips have several, with times where the set tells them."""
    rng, found = random.Random(3), []
    several = definition.subject in ("sound", "music") and definition.name not in ("esc50", "urbansound8k", "vggsound")
    timed = definition.name in ("audioset_strong", "dcase2017")
    for at in range(number):
        count = rng.choice((1, 1, 2, 2, 3, 4, 6, 10)) if several else 1
        labels = tuple(rng.sample(definition.labels, min(count, len(definition.labels))))
        starts = [rng.uniform(0, 8) for _ in labels]
        spans = zip(labels, starts, strict=True)
        events = tuple(Event(label, start, start + rng.uniform(0.1, 5)) for label, start in spans) if timed else ()
        clip = PublishedClip(str(at), definition.name, "train", () if timed else labels, events)
        facts = clip_facts(clip, vocabulary(definition))
        found.append(caption(facts.told, facts.times, "", Draws(str(at))))
    return found


@pytest.mark.parametrize("name", LABELLED)
def test_no_pattern_has_more_than_its_share(name: str) -> None:
    variety = Variety()
    for text, pattern in written(load_corpus_set(name)):
        variety.add(text, pattern)
    assert len(variety.patterns) >= 12
    assert variety.largest_share <= 0.15


@pytest.mark.parametrize("name", ["audioset_strong", "vggsound", "magnatagatune", "mtg_jamendo", "nsynth"])
def test_no_word_is_said_twice_at_once(name: str) -> None:
    """Neither where a wording meets a pattern ("speeding along along with") nor where two labels are one word."""
    definition = load_corpus_set(name)
    for at, label in enumerate(definition.labels):
        other = definition.labels[at - 1]
        known = clip_facts(PublishedClip("1", name, "train", (label, other)), vocabulary(definition))
        for turn in range(16):
            text = caption(known.told, None, "", Draws(f"{label} {turn}")).text
            assert not re.search(r"(?i)\b(\w+) \1\b", text), text
