"""Records are a pure function of clip, set and seed; answers follow from the labels."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from mats_core.model.prompts import family
from pipelines.corpus.clips import Asked, Event, PublishedClip
from pipelines.corpus.definition import CorpusSet, list_corpus_sets, load_corpus_set
from pipelines.corpus.writing.records import (
    COLUMNS,
    MOST_LABELS,
    answer_words,
    clip_facts,
    near,
    vocabulary,
    write_records,
)

LABELLED = [name for name in list_corpus_sets() if load_corpus_set(name).publishes == "labels"]


def clips_of(definition: CorpusSet, number: int, most: int = 1) -> list[PublishedClip]:
    """Made-up clips with one to `most` labels of the set."""
    rng = random.Random(7)
    return [
        PublishedClip(f"c{i}", definition.name, "train", tuple(rng.sample(definition.labels, rng.randint(1, most))))
        for i in range(number)
    ]


@pytest.mark.parametrize("name", LABELLED)
def test_every_set_gives_its_number_of_records_with_all_columns_and_ids_of_their_own(name: str) -> None:
    definition = load_corpus_set(name)
    most = 1 if "single" in definition.tag or definition.subject in ("scene", "emotion", "voice") else 4
    clips = clips_of(definition, 60, min(most, len(definition.labels)))
    records = [record for clip in clips for record in write_records(clip, definition, 3)]
    assert len(records) == 60 * definition.records_a_clip
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        assert tuple(record) == COLUMNS
        assert record["caption"] and record["output"] and record["source"] == name
        assert (family(record["task"]) == "QA") == bool(record["instruction"])
        assert "{" not in record["caption"] + record["instruction"] + record["output"]
        assert record["caption"][0] == record["caption"][0].upper() and record["caption"].endswith(".")


def test_a_record_depends_on_clip_set_and_seed_alone() -> None:
    definition = load_corpus_set("fsd50k")
    clips = clips_of(definition, 80, 5)
    first = {clip.id: write_records(clip, definition, 1) for clip in clips}
    again = {clip.id: write_records(clip, definition.model_copy(), 1) for clip in reversed(clips)}
    assert first == again
    assert sum(first[clip.id] != write_records(clip, definition, 2) for clip in clips) > 70


def test_captions_are_their_own_records_and_a_question_is_asked_about_one() -> None:
    captions = PublishedClip("a.wav", "clotho", "development", captions=("A dog barks.", "Barking."))
    records = write_records(captions, load_corpus_set("clotho"), 0)
    assert [(r["id"], r["caption"], r["output"], r["instruction"]) for r in records] == [
        ("a.wav", "A dog barks.", "A dog barks.", ""),
        ("a.wav#1", "Barking.", "Barking.", ""),
    ]
    asked = (Asked("Is a dog barking?", "yes", "audio_qa"), Asked("How many dogs?", "one", "audio_qa"))
    clip = PublishedClip("a.wav", "clothoaqa", "train", captions=("A dog barks.",), questions=asked)
    records = write_records(clip, load_corpus_set("clothoaqa"), 0)
    assert [(r["caption"], r["instruction"], r["output"], r["task"], r["tag"]) for r in records] == [
        ("A dog barks.", "Is a dog barking?", "yes", "audio_qa", "[audio qa]"),
        ("A dog barks.", "How many dogs?", "one", "audio_qa", "[audio qa]"),
    ]
    bare = PublishedClip("b.wav", "clothoaqa", "train", questions=asked)
    assert write_records(bare, load_corpus_set("clothoaqa"), 0) == []
    labelled = PublishedClip("b.wav", "clothoaqa", "train", labels=("Dog",), questions=asked)
    assert "dog" in write_records(labelled, load_corpus_set("clothoaqa"), 0)[0]["caption"].lower()


def test_what_another_label_implies_is_in_the_answer_and_not_said_twice() -> None:
    definition = load_corpus_set("fsd50k")
    labels = ("Bark", "Dog", "Domestic_animals_and_pets", "Animal", "Rain")
    clip = PublishedClip("1", "fsd50k", "train", labels)
    record = next(r for r in write_records(clip, definition, 0) if r["task"] == "cla_label")
    assert record["output"] == "bark, dog, domestic animals and pets, animal, rain"
    assert "pet" not in record["caption"] and "animal" not in record["caption"].lower()
    assert "bark" in record["caption"].lower() and "rain" in record["caption"].lower()


def test_commas_part_labels_so_a_name_loses_its_own_in_a_list() -> None:
    assert answer_words(["pigeon, dove cooing"], {}) == ["pigeon, dove cooing"]
    several = ["Male speech, man speaking", "Inside, small room", "Roaring cats (lions, tigers)", "Bee, wasp, etc."]
    assert answer_words(several, {}) == ["male speech", "inside small room", "roaring cats", "bee"]
    tags = ["genre---drumnbass", "instrument---electricguitar", "mood/theme---happy"]
    assert answer_words(tags, {}) == ["drum and bass", "electric guitar", "happy"]
    assert answer_words(["hiphop", "rock"], {"hiphop": "hip hop"}) == ["hip hop", "rock"]


def test_of_many_labels_those_are_told_that_sound_longest() -> None:
    definition = load_corpus_set("audioset_strong")
    labels = definition.labels[:14]
    events = tuple(Event(label, 0.0, 1.0 + at) for at, label in enumerate(labels))
    facts = clip_facts(PublishedClip("1", "audioset_strong", "train", events=events), vocabulary(definition))
    assert facts.labels == tuple(labels[-MOST_LABELS:])


@pytest.mark.parametrize("name", ["fsd50k", "esc50", "magnatagatune", "nsynth", "gtzan", "tut2017", "crema_d"])
def test_presence_is_asked_evenly_and_no_means_that_the_label_is_not_there(name: str) -> None:
    definition = load_corpus_set(name).model_copy(update={"records_a_clip": 40})
    answers: Counter[str] = Counter()
    for clip in clips_of(definition, 80, 1 if len(definition.labels) < 60 else 3):
        for record in write_records(clip, definition, 5):
            if record["output"] in ("yes", "no") and record["instruction"]:
                answers[record["output"]] += 1
    assert answers.total() > 60
    assert 0.35 < answers["yes"] / answers.total() < 0.65


def test_what_is_asked_for_in_vain_is_near_what_is_there_and_never_implied_by_it() -> None:
    words = vocabulary(load_corpus_set("fsd50k"))
    facts = clip_facts(PublishedClip("1", "fsd50k", "train", ("Meow", "Cat")), words)
    found = {each.label for each in near(facts)}
    assert "Purr" in found and "Dog" in found  # siblings of Meow and of Cat
    assert not found & {"Meow", "Cat", "Animal", "Domestic_animals_and_pets", "Rain"}
    dog = clip_facts(PublishedClip("1", "fsd50k", "train", ("Dog",)), words)
    assert not {each.label for each in near(dog)} & {"Bark"}  # a dog may bark


@pytest.mark.parametrize("name", LABELLED)
def test_of_every_label_of_every_set_something_can_be_asked_in_vain(name: str) -> None:
    definition = load_corpus_set(name)
    words = vocabulary(definition)
    for label in definition.labels:
        found = near(clip_facts(PublishedClip("1", name, "train", (label,)), words))
        assert found and label not in {each.label for each in found}, label


def test_counts_and_what_comes_first_follow_from_the_times() -> None:
    definition = load_corpus_set("audioset_strong").model_copy(update={"records_a_clip": 400})
    events = (Event("Rain", 0.0, 1.0), Event("Bark", 2.0, 2.5), Event("Bark", 3.0, 3.5), Event("Music", 5.0, 9.0))
    clip = PublishedClip("1", "audioset_strong", "train", events=events)
    asked = [r for r in write_records(clip, definition, 0) if r["instruction"]]
    first = {r["output"] for r in asked if "first" in r["instruction"] or "begin" in r["instruction"]}
    assert first == {"rain"}
    often = [r for r in asked if "often" in r["instruction"] or "times" in r["instruction"]]
    assert often
    for record in often:
        bark = bool(re.search("bark|dog", record["instruction"]))
        assert record["output"] == ("two" if bark else "one")
        assert ("twice" if bark else "once") in record["caption"]  # the model is not asked for what it is not told
    together = (Event("Rain", 0.0, 4.0), Event("Bark", 1.0, 2.0), Event("Music", 3.0, 9.0))
    untold = write_records(PublishedClip("2", "audioset_strong", "train", events=together), definition, 0)
    assert not any("first" in r["instruction"] or "begin" in r["instruction"] for r in untold)
    different = {r["output"] for r in asked if "different" in r["instruction"] or "distinct" in r["instruction"]}
    assert different == {"three"}


def test_a_caption_asked_for_says_the_same_in_other_words() -> None:
    definition = load_corpus_set("esc50").model_copy(update={"records_a_clip": 300})
    records = write_records(PublishedClip("1", "esc50", "train", ("dog",)), definition, 0)
    captions = [r for r in records if r["task"] == "caption"]
    assert len(captions) > 5
    assert all("dog" in r["output"].lower() for r in captions)
    assert sum(r["caption"] == r["output"] for r in captions) <= 1
