"""What is wrong with a sentence that another wrote about a clip: it must name each of its sounds, and no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

from pipelines.corpus.writing.phrases import Entry, plain
from pipelines.corpus.writing.records import ClipFacts, ancestors

FEWEST_WORDS, MOST_WORDS = 2, 40
# Words that name no sound: those of grammar, those that fill a sentence or say that somebody makes a sound, and what
# most things do. Where a label has no others, the last and then the second of these count as well.
_GRAMMAR = "a an the of in on at from with and or to into by as is are be been being it its their there this that while"
_EMPTY = """his her person people someone somebody something sound noise audio recording clip can contain heard hear
    then microphone pick tone"""
_PALE = "play run work move use go make"
_NO = re.compile(r"(?i)\b(no|not|without|never|neither|nor|lacks?|lacking|free|absent|absence)\b|n't\b")
_LOUD = re.compile(r"(?i)\b(loud\w*|quiet\w*|faint\w*|soft\w*|distant\w*|near\w*|far|nearby|background|foreground)\b")
_ORDER = re.compile(
    r"(?i)\b(then|after\w*|before|first\w*|followed|follows|following|later|next|finally|begins|ends)\b"
)
_BACKWARDS = re.compile(r"(?i)(?<!^)\b(after|preceded|following)\b")
_STRANGE = re.compile(r"[<>{}\[\]|#*_=\\/@:]|https?:|[^\x00-\x7fÀ-ɏ‘’“”–—…]")


def wrong_with(text: str, facts: ClipFacts) -> str:
    """Why `text` cannot stand for the clip, in a few words; "" where it can."""
    words = re.findall(r"[\w'-]+", text)
    if not words:
        return "empty"
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return "too short" if len(words) < FEWEST_WORDS else "too long"
    if _STRANGE.search(text) or not text[0].isalnum() or text[-1] not in ".!" or re.search(r"[.!?] +\S", text):
        return "not one plain sentence"
    found = stems(text)
    places = [named_at(each, found) for each in facts.told]
    if any(place is None for place in places):
        return "names not all"
    if _repeats(text, facts):
        return "says a sound twice"
    if _invented(found, facts):
        return "names another"
    if not facts.level and (loud := _LOUD.search(text)) and stem(loud[0]) not in _own(facts):
        return "tells a loudness that is not known"
    return _order(text, facts, {each.label: place for each, place in zip(facts.told, places, strict=True)})


def stems(text: str) -> dict[str, int]:
    """The words of a text without their endings, and where each comes first."""
    found: dict[str, int] = {}
    for match in re.finditer(r"[^\W_]+", text.lower().replace("’s", "").replace("'s", "")):
        found.setdefault(stem(match[0]), match.start())
    return found


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A word without what bends it: "barking", "barks" and "barked" are one."""
    word = word.lower()
    word = f"{word[:-3]}y" if len(word) > 4 and word.endswith("ies") else word
    for ending in ("ingly", "ing", "edly", "ed", "ily", "ly", "es", "s", "er", "e", "y"):
        short = word.removesuffix(ending)
        if short != word and len(short) >= 3 and not (ending == "s" and short.endswith("s")):
            word = short
            break
    return word[:-1] if len(word) > 3 and (word[-1] == word[-2] or word.endswith("i")) else word


_STEMS_OF_GRAMMAR, _STEMS_OF_EMPTY, _MOST_DO = (
    frozenset(stem(word) for word in words.split()) for words in (_GRAMMAR, _EMPTY, _PALE)
)
_FILL = _STEMS_OF_GRAMMAR | _STEMS_OF_EMPTY


@lru_cache(maxsize=1 << 16)
def _said(entry: Entry) -> tuple[frozenset[str], ...]:
    """The stems of each way in which the tables say a label."""
    texts = [each.noun for each in entry.phrases] or [entry.word]
    texts += [entry.manner, entry.feeling] if entry.role == "emotion" else []
    return _options(texts)


@lru_cache(maxsize=1 << 16)
def _wordings(entry: Entry) -> tuple[frozenset[str], ...]:
    """Sets of stems, of which one must be in a text that names a label: as the tables say it, or as its name does."""
    names = re.split(r", | or |/", re.sub(r"\s*\(.*", "", plain(entry.label)))
    return tuple(dict.fromkeys((*_said(entry), *_options(names)))) or (frozenset(stems(entry.label)),)


def _options(texts: Iterable[str]) -> tuple[frozenset[str], ...]:
    found = [frozenset(stems(text)) - _STEMS_OF_GRAMMAR for text in texts]
    return tuple(each - _FILL - _MOST_DO or each - _FILL or each for each in found if each)


def named_at(entry: Entry, found: dict[str, int]) -> int | None:
    """Where in a text of these stems a label is named first; None where it is not."""
    places = []
    for option in _wordings(entry):
        at = [found.get(each) for each in option]
        if all(place is not None for place in at):
            places.append(min(place for place in at if place is not None))
    if entry.role in ("without", "not") and places and not _NO.search(" ".join(found)):
        return None
    return min(places, default=None)


def _repeats(text: str, facts: ClipFacts) -> bool:
    """Whether a text has a sound's own word more often than the wordings of its sounds have, where none comes again."""
    if facts.times and any(number > 1 for number in facts.times.times.values()):
        return False
    words = Counter(_stem_list(text))
    most: Counter[str] = Counter()
    for entry in facts.told:
        own = [Counter(_stem_list(each)) for each in (*(said.noun for said in entry.phrases), entry.label)]
        most.update({word: max(each[word] for each in own) for word in _union(_wordings(entry))})
    return any(words[word] > number for word, number in most.items() if number)


def _stem_list(text: str) -> list[str]:
    return [stem(word) for word in re.findall(r"[^\W_]+", text.lower())]


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset(each for one in sets for each in one)


def _own(facts: ClipFacts) -> set[str]:
    """The stems of all that may be said of the clip's labels."""
    return {each for entry in facts.told for each in _union(_wordings(entry))}


def _invented(found: dict[str, int], facts: ClipFacts) -> bool:
    """Whether a text names a label of the set that the clip has not and that none of its own implies."""
    texts = [*(said.noun for entry in facts.told for said in entry.phrases), *(entry.label for entry in facts.told)]
    own = _own(facts) | set(stems(" ".join(texts)))
    mine = set(facts.labels)
    implied: set[str] = set().union(*(ancestors(each.key) for each in facts.told))
    new = {each for each in found if each not in own and each not in _FILL}
    for other in facts.vocabulary.entries if new else ():
        if other.label in mine or other.key in implied or other.role in ("without", "not", "use"):
            continue
        if any(option & new and option <= found.keys() for option in _said(other)):
            return True
    return False


def _order(text: str, facts: ClipFacts, places: dict[str, int | None]) -> str:
    """What is wrong with the order that a text tells."""
    phases = facts.times.phases if facts.times else ()
    told = bool(_ORDER.search(text))
    if len(phases) < 2:
        return "tells an order that is not known" if told else ""
    first: dict[str, int] = {}
    for number, phase in enumerate(phases):
        for label in phase.labels:
            first.setdefault(label, number)
    in_text = sorted((place or 0, first[label]) for label, place in places.items() if label in first)
    if told and (_BACKWARDS.search(text) or not _rises([number for _, number in in_text])):
        return "tells another order"
    return ""


def _rises(numbers: Iterable[int]) -> bool:
    return all(before <= after for before, after in pairwise(numbers))
