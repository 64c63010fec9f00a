"""The tables against a library of English that is not ours: articles, and whether a phrase is one or many."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from pipelines.corpus.writing.phrases import Phrase, article, table

inflect = pytest.importorskip("inflect")  # in the extra `dev`

# Plurals without an s, and words in s that are not plurals, which the library takes for the other.
ONE_THOUGH = {"livestock", "sheep", "blues", "opera", "bus", "aircraft", "cutlery", "equipment", "chorus"}
MANY_THOUGH = {"cattle", "timpani", "tympani"}


@cache
def english() -> Any:
    return inflect.engine()


@cache
def is_plural(word: str) -> bool:
    """Whether the library has a singular for a noun."""
    return word in MANY_THOUGH or (word not in ONE_THOUGH and bool(english().singular_noun(word)))


@cache
def article_of(word: str) -> str:
    """The library's article before a word."""
    return str(english().a(word)).partition(" ")[0]


def head(said: Phrase) -> str:
    """The noun that a phrase's verb agrees with."""
    subject = said.clause.partition(" are " if said.plural else " is ")[0] if said.acts else said.noun
    return re.split(r" (?:of|in|on|for|from|without|under|with) ", subject)[0].split()[-1]


@pytest.mark.parametrize("name", ["sound", "scene", "instrument", "genre", "music"])
def test_a_phrase_is_plural_where_its_noun_is(name: str) -> None:
    for each in table(name).values():
        for said in each.phrases:
            assert said.plural == is_plural(head(said)), said.noun


@pytest.mark.parametrize("name", ["sound", "scene", "instrument", "genre", "music", "emotion"])
def test_a_and_an_stand_where_they_belong(name: str) -> None:
    for each in table(name).values():
        texts = [said.noun for said in each.phrases]
        texts += [article(each.word)] if each.role in ("genre", "adjective", "emotion") else []
        for text in texts:
            match = re.match(r"(an?) (\S+)", text)
            if match and match[2] not in ("R&B", "80s"):  # an ar, an eighty
                assert article_of(match[2]) == match[1], text
