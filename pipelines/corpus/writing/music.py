"""Sentences about a piece of music or a note, out of genres, adjectives, instruments and what is absent."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.corpus.writing import patterns
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import Entry, article, capital, listed


def music_caption(entries: Sequence[Entry], draws: Draws) -> tuple[str, str]:
    """A sentence that names all of `entries`, and its pattern: "This is a slow rock track with a piano." """
    words: dict[str, list[str]] = {}
    for each in entries:
        role = "with" if each.role in ("effect", "sound") else each.role
        word = each.word or draws.pick(each.phrases).noun
        if word not in words.setdefault(role, []):  # "clasical" and "classical" are one word here
            words[role].append(word)
    styles = words.get("genre", [])
    told = {part for style in styles for part in style.split()}  # "hard" is said by "hard rock"
    adjectives = _spaced(", ".join(word for word in words.get("adjective", ()) if word not in told))
    genres = _spaced(listed(styles))
    body, frame = draws.pick(patterns.MUSIC_BODIES), draws.pick(patterns.MUSIC_FRAMES)
    said = body.format(
        all=adjectives + genres, genres=genres, an_all=_with_article(adjectives + genres),
        an_adjectives=_with_article(adjectives),
    )  # fmt: skip
    if "use" in words:
        said += f" {listed(words['use'])}"
    if "with" in words:
        said += f" with {listed(words['with'])}"
    if "without" in words:
        said += f"{' but' if 'with' in words else ''} without {listed(words['without'], 'or')}"
    text = capital(frame.format(m=said))
    if "not" in words:
        text += f" It is not {listed(words['not'], 'or')}."
    return text, f"{body} {frame}"


def note_caption(entries: Sequence[Entry], draws: Draws) -> tuple[str, str] | None:
    """A sentence about a note of an instrument and its qualities, and its pattern; None where no instrument is told."""
    nouns = list(dict.fromkeys(each.phrases[0].noun for each in entries if each.role == "with"))
    if not nouns:
        return None
    effects = listed([each.word for each in entries if each.role == "effect"])
    pattern = draws.pick(patterns.NOTE)
    adjectives = _spaced(", ".join(dict.fromkeys(each.word for each in entries if each.role == "adjective")))
    tail = f" with {effects}" if effects else ""
    return capital(pattern.format(an=_with_article(adjectives), l=listed(nouns), tail=tail)), pattern


def _spaced(words: str) -> str:
    return f"{words} " if words else ""


def _with_article(adjectives: str) -> str:
    return article(adjectives) if adjectives else "a "
