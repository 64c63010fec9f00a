"""How a published label is said in English: noun phrases and clauses, by table, and by rule where no table has it.

The tables in phrases/ are read by people: a label, the role it plays in a sentence, how it is said. In a phrase,
" / " parts wordings, "+" marks a plural, and "noun | doing" also makes a clause ("a dog | barking": a dog is barking).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

from pipelines.corpus.writing.draws import Draws

FOLDER = Path(__file__).parent / "phrases"
TABLES = {
    "sound": ("sound",), "voice": ("sound",), "scene": ("scene",), "emotion": ("emotion",),
    "instrument": ("instrument", "music"), "genre": ("genre", "music"), "music": ("music", "genre", "instrument"),
}  # fmt: skip
"""Subject of a set → the tables that may have its labels, the one that counts first."""

# Words that keep their capital within a sentence; other words of a label lose it.
_PROPER = frozenset({
    "Hammond", "French", "Middle", "North", "South", "East", "Asia-Far", "N.", "Eastern", "Christmas", "Christian",
    "Carnatic", "Latin", "Bollywood", "America", "American", "African", "Africa", "Asia", "Asian", "Afrobeat", "Indian",
    "Brazilian", "R&B", "Spanish", "Turkish", "Balkan", "Celtic", "European", "Europe", "Romany", "British", "Pacific",
    "Western", "RnB", "Americana", "Rhodes", "Baltimore", "DTMF", "CO", "DJ", "IDM", "EDM", "MP3",
})  # fmt: skip
_EMPTY = frozenset({"a", "an", "the", "of", "in", "on", "being", "played", "playing", "and", "or"})

# The sound of a word's beginning, where its first letter misleads: "a ukulele", "an hour", "an 80s hit", "an R&B song".
_LIKE_CONSONANT = re.compile(r"(?i)(uni(?![dmn])|uk|us[aeu]|ut[ei]|eu|ewe|one\b|once\b)")
_LIKE_VOWEL = re.compile(r"hour|honest|heir|8|11\b|18\b|[FHLMNRSX][A-Z&]")


@dataclass(frozen=True)
class Phrase:
    """One wording. noun: with its article, after "the sound of" and as a subject. clause: a finite sentence without its
    capital and full stop. acts: whether the clause says what the noun does, rather than that it can be heard."""

    noun: str
    clause: str
    plural: bool = False
    acts: bool = False


@dataclass(frozen=True)
class Entry:
    """A label in sentences.

    role: sound (wordings in `phrases`), place (word: where; phrases: what), emotion (word: adjective, manner, feeling),
    genre and adjective (word: before "music"), with, effect, without, not and use (what music is with, without, is
    not, is for; an effect is never what is heard). kin: keys of labels or groups that a sound belongs to; those that
    share one occur near each other.
    """

    label: str
    role: str
    word: str
    phrases: tuple[Phrase, ...]
    kin: tuple[str, ...] = ()
    manner: str = ""
    feeling: str = ""

    @cached_property
    def content(self) -> frozenset[str]:
        """The words of the label and of its first wording that mean something."""
        texts = [plain(self.label), self.word, *(each.noun for each in self.phrases[:1])]
        return frozenset(re.findall(r"[\w'-]+", " ".join(texts).lower())) - _EMPTY

    @cached_property
    def key(self) -> str:
        """What the label is looked up by."""
        return key(self.label)


def key(label: str) -> str:
    """What a label is looked up by: "Chuckle, chortle" and "Chuckle_and_chortle" are one, as are their capitals."""
    return re.sub(r",( and)? ", " and ", label.rpartition("---")[2].replace("_", " ").strip().casefold())


@lru_cache(maxsize=1 << 16)
def plain(label: str) -> str:
    """A label in running text: without underscores, prefix and capitals that only begin a name."""
    words = label.rpartition("---")[2].replace("_", " ").strip().split()
    return " ".join(word if word.strip("(),") in _PROPER else word.lower() for word in words)


def article(words: str) -> str:
    """`words` behind "a" or "an"."""
    vowel = words[:1].lower() in "aeiou" and not _LIKE_CONSONANT.match(words)
    return f"{'an' if vowel or _LIKE_VOWEL.match(words) else 'a'} {words}"


def listed(items: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"; where an item has an "and" of its own, what parts the items is made plainer."""
    if len(items) < 2:
        return items[0] if items else ""
    if not any(" and " in item for item in items):
        return f"{', '.join(items[:-1])} {last} {items[-1]}"
    parting = "as well as" if last == "and" else last
    return f"{items[0]} {parting} {items[1]}" if len(items) == 2 else f"{', '.join(items[:-1])}, {last} {items[-1]}"


def pick_pattern(patterns: Sequence[str], noun: str, draws: Draws) -> str:
    """One of `patterns` that goes well with `noun`: no "sound of bathroom sounds", no "there is the clip-clop"."""
    at = draws.below(len(patterns))
    if "sound" not in noun and not noun.startswith("the "):
        return patterns[at]
    turned = (*patterns[at:], *patterns[:at])
    return next(
        pattern
        for pattern in turned
        if not ("sound" in pattern and "sound" in noun)
        and not (("there {be}" in pattern or "{be} there" in pattern) and noun.startswith("the "))
    )


def capital(text: str) -> str:
    """`text` with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def phrase(text: str) -> Phrase:
    """The wording that one alternative of a table's cell stands for."""
    plural = text.startswith("+")
    noun, acts, doing = text.removeprefix("+").partition(" | ")
    if not acts:
        return Phrase(noun, f"{noun} can be heard", plural)
    return Phrase(f"{noun} {doing}", f"{noun} {'are' if plural else 'is'} {doing}", plural, True)


@cache
def table(name: str) -> dict[str, Entry]:
    """The entries of a table by their key."""
    with (FOLDER / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {key(row["label"]): _entry(name, row) for row in rows}


def _entry(name: str, row: dict[str, str]) -> Entry:
    label, text = row["label"], row["phrase"]
    if name == "scene":
        noun, _, place = text.partition(" | ")
        return Entry(label, "place", place, (phrase(noun),))
    if name == "emotion":
        adjective, manner, feeling = text.split(" | ")
        return Entry(label, "emotion", adjective, (), manner=manner, feeling=feeling)
    role = row.get("role") or "sound"
    kin = tuple(key(each) for each in (row.get("kin") or "").split(" / ") if each)
    if role in ("sound", "with"):
        return Entry(label, role, "", tuple(phrase(each) for each in text.split(" / ")), kin)
    return Entry(label, role, text, ())


@lru_cache(maxsize=1 << 16)
def entry(subject: str, label: str) -> Entry:
    """How `label` of a set about `subject` is said; a label that no table has is said by rule."""
    found = (table(name).get(key(label)) for name in TABLES[subject])
    return next((each for each in found if each), None) or by_rule(subject, label)


def by_rule(subject: str, label: str) -> Entry:
    """A label that is in no table, said so that the sentence is right whatever the word is.

    Of a sound that is not "dog barking", "playing drums" or a plural, nothing tells whether it can be counted, so it is
    said as "a … sound".
    """
    text = re.sub(r"\s*\([^)]*\)", "", plain(label)).partition(",")[0].replace("/", " or ").strip() or "unnamed"
    plural = bool(re.search(r"[^su]s$|ies$", text)) and " or " not in text
    noun = text if plural else article(text)
    if subject == "scene":
        return Entry(label, "place", f"in {noun}", (phrase(f"+{noun}" if plural else noun),))
    if subject == "emotion":
        return Entry(label, "emotion", text, (), manner=f"in {article(text)} way", feeling=f"{article(text)} mood")
    if subject == "genre":
        return Entry(label, "genre", text, ())
    if subject == "music":
        return Entry(label, "with", "", (phrase(f'the tag "{text}"'),))
    if subject == "instrument":
        alone = f"+{noun}" if plural else noun
        return Entry(label, "with", "", (phrase(alone), phrase(f"{alone} | being played")))
    who, _, doing = text.rpartition(" ")
    if who and doing.endswith("ing") and not who.endswith("ing"):
        many = bool(re.search(r"[^su]s$|^people$|^children$|^men$|^women$", who))
        return Entry(label, "sound", "", (phrase(f"+{who} | {doing}" if many else f"{article(who)} | {doing}"),))
    if text.partition(" ")[0].endswith("ing"):
        return Entry(label, "sound", "", (phrase(text),))
    return Entry(label, "sound", "", (phrase(f"+{text}" if plural else f"{article(text)} sound"),))
