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
