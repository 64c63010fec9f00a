"""How labels are said: from the tables, and by rule where none has them."""

from __future__ import annotations

import pytest

from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.patterns import ONE
from pipelines.corpus.writing.phrases import article, entry, key, listed, phrase, pick_pattern, plain, table

TABLE_NAMES = ("sound", "scene", "emotion", "instrument", "genre", "music")


def test_one_cell_of_a_table_is_a_noun_phrase_and_a_clause() -> None:
    dog, rain, people = phrase("a dog | barking"), phrase("rain"), phrase("+people | talking")
    assert (dog.noun, dog.clause, dog.plural) == ("a dog barking", "a dog is barking", False)
    assert (rain.noun, rain.clause) == ("rain", "rain can be heard")
    assert (people.noun, people.clause, people.plural) == ("people talking", "people are talking", True)


def test_the_ways_in_which_publishers_write_one_name_are_one() -> None:
    assert key("Chuckle, chortle") == key("Chuckle_and_chortle") == key("chuckle, chortle")
    assert key("Dishes, pots, and pans") == key("Dishes_and_pots_and_pans")
    assert key("mood/theme---happy") == key("Happy")
    assert entry("sound", "Male_speech_and_man_speaking") is not None
    assert plain("Middle Eastern music") == "Middle Eastern music"
    assert plain("French horn") == "French horn" and plain("city_center") == "city center"


@pytest.mark.parametrize(
    ("subject", "label", "noun", "clause"),
    [
        ("sound", "Kettle_boiling", "a kettle boiling", "a kettle is boiling"),
        ("sound", "dogs fighting", "dogs fighting", "dogs are fighting"),
        ("sound", "playing marbles", "playing marbles", "playing marbles can be heard"),
        ("sound", "Gravel", "a gravel sound", "a gravel sound can be heard"),
        ("sound", "Ukelin (zither)", "a ukelin sound", "a ukelin sound can be heard"),
        ("sound", "Moose, elk", "a moose sound", "a moose sound can be heard"),
        ("sound", "Glass", "glass", "glass can be heard"),
        ("instrument", "lyre", "a lyre", "a lyre can be heard"),
        ("instrument", "Cymbalom", "a cymbalom", "a cymbalom can be heard"),
    ],
)
def test_a_label_that_no_table_has_is_said_by_rule(subject: str, label: str, noun: str, clause: str) -> None:
    said = entry(subject, label).phrases[0]
    assert (said.noun, said.clause) == (noun, clause)


def test_scenes_emotions_and_genres_that_no_table_has() -> None:
    assert entry("scene", "airport").word == "in an airport" and entry("scene", "woods").word == "in woods"
    assert entry("emotion", "bored").manner == "in a bored way"
    assert entry("genre", "Vaporwave").word == "vaporwave"


def test_articles_follow_the_sound_and_not_the_letter() -> None:
    for words in ("an hour", "a ukulele", "a European song", "an R&B song", "an 80s song", "a 90s song", "an IDM song",
                  "a unit", "an uneven beat", "an umbrella", "a one-man band", "an honest man", "a house"):  # fmt: skip
        assert article(words.partition(" ")[2]) == words


def test_lists_show_where_an_item_ends() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["rock and roll", "speech"]) == "rock and roll as well as speech"
    assert listed(["a", "rock and roll", "c"]) == "a, rock and roll, and c"
    assert listed(["drums", "a voice"], "or") == "drums or a voice"


@pytest.mark.parametrize("noun", ["bathroom sounds", "the clip-clop of hooves", "the sound of rain"])
def test_a_pattern_is_not_put_around_a_phrase_that_it_does_not_go_with(noun: str) -> None:
    picked = {pick_pattern(ONE, noun, Draws(str(at))) for at in range(300)}
    assert len(picked) >= 12
    for text in (pattern.format(n=noun, c=noun, be="is") for pattern in picked):
        assert "sound of " + noun not in text or "sound" not in noun
        assert "there is the" not in text


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_every_row_of_a_table_says_something(name: str) -> None:
    for each in table(name).values():
        assert each.phrases or each.word
        for said in each.phrases:
            assert said.noun == said.noun.strip() and "  " not in said.clause and "," not in said.noun
            assert not said.noun[0].isupper() or plain(said.noun)[0].isupper()  # capitals are those of names
