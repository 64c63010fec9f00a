"""Sentences about music: genres and adjectives before the noun, instruments and what is absent behind it."""

from __future__ import annotations

import re

from pipelines.corpus.writing.captions import caption
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import entry


def texts(subject: str, *labels: str, number: int = 200) -> set[str]:
    entries = [entry(subject, label) for label in labels]
    return {caption(entries, None, "", Draws(f"{at}")).text for at in range(number)}


def test_each_tag_stands_where_its_kind_belongs() -> None:
    found = texts("music", "slow", "quiet", "classical", "violin", "strings", "no vocals", "not rock")
    tail = " with a violin and strings but without vocals"
    assert f"This is a slow, quiet classical track{tail}. It is not rock." in found
    assert f"A slow, quiet piece of classical music{tail} is playing. It is not rock." in found
    assert len(found) == 25


def test_music_of_which_little_is_told() -> None:
    assert "A rock and pop track is playing." in texts("genre", "Rock", "Pop")
    assert "A piece of hip hop music." in texts("genre", "hiphop")
    assert "Music without vocals or a guitar." in texts("music", "no vocals", "no guitar")
    assert "An uplifting recording for a film." in texts("music", "mood/theme---uplifting", "mood/theme---film")


def test_articles_in_front_of_what_comes_first() -> None:
    assert "An 80s track." in texts("music", "genre---80s")
    assert "An R&B track." in texts("music", "rnb")
    assert not {text for text in texts("music", "upbeat", "idm", "acoustic") if re.search(r"\b[Aa] [aeiou]", text)}


def test_what_is_no_music_is_said_as_it_is() -> None:
    assert "An interview can be heard." in texts("genre", "Interview")
    assert "Field recordings are audible." in texts("genre", "Field Recordings")


def test_two_tags_that_are_one_word_are_said_once() -> None:
    assert not {text for text in texts("music", "clasical", "classical", "harpsichord", "harpsicord") if
                text.count("classical") > 1 or text.count("harpsichord") > 1}  # fmt: skip


def test_a_note_of_an_instrument_and_its_qualities() -> None:
    found = texts("instrument", "guitar", "acoustic", "bright", "reverb", "fast_decay")
    assert "An acoustic, bright note from a guitar with reverb and a fast decay." in found
    assert len(found) == 12
    assert "A note from a flute with distortion." in texts("instrument", "flute", "distortion")
    assert "Bright music." in texts("instrument", "bright")
