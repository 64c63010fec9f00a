"""What another writes of a clip is taken only where it names all of its sounds, no other, and tells what is known."""

from __future__ import annotations

import pytest

from pipelines.corpus.clips import Event, PublishedClip
from pipelines.corpus.definition import list_corpus_sets, load_corpus_set
from pipelines.corpus.writing.captions import caption
from pipelines.corpus.writing.checks import MOST_WORDS, stem, wrong_with
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.records import ClipFacts, clip_facts, vocabulary

LABELLED = [name for name in list_corpus_sets() if load_corpus_set(name).publishes == "labels"]


def facts(name: str, *labels: str, events: tuple[Event, ...] = (), level: str = "") -> ClipFacts:
    clip = PublishedClip("1", name, "train", () if events else labels, events, level=level)
    return clip_facts(clip, vocabulary(load_corpus_set(name)))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A dog barks while rain falls.", ""),
        ("Rain and the barking of a dog.", ""),
        ("It is raining as a dog barks at someone.", ""),
        ("A dog barks.", "names not all"),
        ("A dog barks in the rain and a cat meows.", "names another"),
        ("A dog barks loudly in the rain.", "tells a loudness that is not known"),
        ("A dog barks, then rain falls.", "tells an order that is not known"),
        ("A dog barks and a dog barks in the rain.", "says a sound twice"),
        ("Sounds: a dog barking and rain.", "not one plain sentence"),
        ("A dog barks. Rain falls.", "not one plain sentence"),
        ("Here is <b>the dog bark</b> and rain.", "not one plain sentence"),
        ("", "empty"),
        ("Rain.", "too short"),
        ("A dog barks and rain falls " + "on and on " * MOST_WORDS + ".", "too long"),
    ],
)
def test_a_sentence_about_a_dog_that_barks_in_the_rain(text: str, wrong: str) -> None:
    assert wrong_with(text, facts("fsd50k", "Bark", "Dog", "Rain")) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("As an AI, I cannot hear a dog bark in the rain.", "speaks of itself"),
        ("I'm sorry, but I can't listen to a dog barking in the rain.", "speaks of itself"),
        ("Sure, a dog barks in the rain.", "speaks of itself"),
        ("Here is a dog barking in the rain.", "speaks of itself"),
        ("The labels are a bark of a dog and rain.", "speaks of itself"),
        ("Please note that a dog barks in the rain.", "speaks of itself"),
        ("There is no dog that barks and no rain.", "says that something is missing"),
        ("A dog that barks and rain are not heard.", "says that something is missing"),
        ("A dog doesn’t bark in the rain.", "says that something is missing"),
        ("Neither a dog barking nor rain can be heard.", "says that something is missing"),
        ("Un dog barks dans la rain.", "another language"),
        ("Ein dog barks im rain und rain.", "another language"),
        ("A dog barks sous la pluie, rain.", "another language"),
        ("Dog barking ve yağmur rain.", "not one plain sentence"),
        ("A dog barks in the rain в парке.", "not one plain sentence"),
        ("A dog barks in the rain 狗.", "not one plain sentence"),
        ("A dog barks \U0001f415 in the rain.", "not one plain sentence"),
        ("A dog barks\u200b in the rain.", "not one plain sentence"),
        ("A dog barks\x07 in the rain.", "not one plain sentence"),
        ("A dog (barking) and rain.", "not one plain sentence"),
        ("1. A dog barks in the rain.", "not one plain sentence"),
        ("- A dog barks in the rain.", "not one plain sentence"),
        ("A dog barks in the rain.Then it ends.", "not one plain sentence"),
        ("A DOG BARKS IN THE RAIN.", "not one plain sentence"),
        ("A Dog Barks In The Rain.", "not one plain sentence"),
        ("A dog barks in the rain while the.", "not one plain sentence"),
        ("Is that a dog barking in the rain?", "not one plain sentence"),
        ("A dog barks in the rain on the way home on the way home.", "repeats itself"),
        ("A dog barks and goes on and and on in the rain.", "repeats itself"),
        ("Dog dog dog bark rain rain.", "says a sound twice"),
        ("Two dogs bark in the rain.", "tells a number that is not known"),
        ("A dog barks 3 times in the rain.", "tells a number that is not known"),
        ("Several dogs bark in the rain.", "tells a number that is not known"),
        ("A dog barks in heavy rain.", "tells a loudness that is not known"),
    ],
)
def test_what_an_llm_may_answer_instead(text: str, wrong: str) -> None:
    """Refusals, talk, denials, other languages, odd text, inventions: each names the sounds, and none is taken."""
    assert wrong_with(text, facts("fsd50k", "Bark", "Dog", "Rain")) == wrong


def test_only_that_may_be_missing_of_which_a_label_says_so() -> None:
    music = facts("magnatagatune", "violin", "no vocals")
    assert wrong_with("A violin plays without any vocals.", music) == ""
    assert wrong_with("No vocals are heard, a violin plays.", music) == ""
    assert wrong_with("A piece with no violin but vocals.", music) == "names not all"
    assert wrong_with("Vocals and a violin are not heard.", music) == "says that something is missing"
    assert wrong_with("A violin plays with vocals.", music) == "names not all"


def test_a_number_that_is_told_is_the_one_that_is_known() -> None:
    barks = (Event("Bark", 0, 1), Event("Bark", 3, 4), Event("Bark", 6, 7))
    known = facts("audioset_strong", events=barks)
    assert wrong_with("A dog barks three times.", known) == ""
    assert wrong_with("A dog barks several times.", known) == ""
    assert wrong_with("A dog barks twice.", known) == "tells a number that is not known"


def test_what_a_label_implies_may_be_named() -> None:
    assert wrong_with("An animal, a dog, barks.", facts("fsd50k", "Bark", "Dog")) == ""
    assert wrong_with("An animal, a cat, barks.", facts("fsd50k", "Bark", "Dog")) == "names another"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A dog barks, then a church bell rings.", ""),
        ("A dog barks and a church bell rings.", ""),
        ("A church bell rings, then a dog barks.", "tells another order"),
        (
            "A church bell rings after a dog barks.",
            "tells another order",
        ),  # true, but hard to tell
    ],
)
def test_an_order_that_is_told_is_the_one_that_is_known(text: str, wrong: str) -> None:
    events = (Event("Bark", 0, 1), Event("Church bell", 2, 3))
    assert wrong_with(text, facts("audioset_strong", events=events)) == wrong


def test_a_level_that_is_known_may_be_told() -> None:
    text = "A dog barks in the background."
    assert wrong_with(text, facts("urbansound8k", "dog_bark", level="background")) == ""
    assert wrong_with(text, facts("urbansound8k", "dog_bark")) == "tells a loudness that is not known"


def test_music_places_and_emotions() -> None:
    music = facts("magnatagatune", "slow", "classical", "violin", "no vocals")
    assert wrong_with("A slow classical piece for violin with no vocals.", music) == ""
    assert wrong_with("A slow classical piece for violin and vocals.", music) == "names not all"
    assert wrong_with("A slow classical piece for violin and piano, no vocals.", music) == "names another"
    assert wrong_with("Someone is in a city center.", facts("tut2017", "city_center")) == ""
    assert wrong_with("Someone is in a park.", facts("tut2017", "city_center")) == "names not all"
    assert wrong_with("A voice full of anger.", facts("crema_d", "anger")) == ""
    assert wrong_with("A voice that sounds sad.", facts("crema_d", "anger")) == "names not all"


def test_endings_do_not_part_words() -> None:
    for words in ("bark barks barked barking", "cry cries crying", "sneeze sneezing sneezes", "run running runs",
                  "chirp chirping", "clap clapping claps", "angry angrily", "bell bells"):  # fmt: skip
        assert len({stem(word) for word in words.split()}) == 1, words
    assert stem("glass") == "glas" and stem("bus") == "bus" and stem("car") != stem("card")


@pytest.mark.parametrize("name", LABELLED)
def test_what_templates_say_of_one_label_names_it(name: str) -> None:
    """The check and the tables know the same words: no template is refused for what it names."""
    for label in load_corpus_set(name).labels:
        known = facts(name, label)
        text = caption(known.told, None, "", Draws(label)).text
        assert wrong_with(text, known) in ("", "too short", "not one plain sentence"), (label, text)
