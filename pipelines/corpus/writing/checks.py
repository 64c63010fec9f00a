"""What is wrong with a sentence that another wrote about a clip: it must name each of its sounds, and no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
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
_NO = re.compile(
    r"(?i)\b(no|not|without|never|neither|nor|none|nothing|cannot|lacks?|lacking|free|absent|absence|missing|unheard)\b"
    r"|\w+n['’]t\b"
)
NEGATED_WORDS = 4
"""Words behind "no" or "without" of which it speaks."""
_LOUD = re.compile(
    r"(?i)\b(loud\w*|quiet\w*|faint\w*|soft\w*|distant\w*|near\w*|far|faraway|background|foreground|deafening|blaring"
    r"|muffled|gentl[ey]|heav(y|ily)|subtl[ey]|intense(ly)?)\b"
)
_NUMBERS = {
    "two": 2, "twice": 2, "both": 2, "couple": 2, "pair": 2, "three": 3, "thrice": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
_SOME = re.compile(r"(?i)\b(several|many|multiple|few|dozens?|hundreds?|numerous|various)\b")
# One who speaks of the task, of itself or to somebody, instead of telling what is heard.
_SPEAKER = re.compile(
    r"(?i)\b(i|me|my|ai|sorry|please|thanks?|sure|certainly|unable|users?|prompts?|instructions?"
    r"|captions?|descriptions?|labels?|tags?|translations?|language|assistant|models?)\b"
    r"|^(here|ok|okay|yes|of course|known|answer)\b"
)
# The small words of other languages that are none of English.
_FOREIGN = re.compile(
    r"(?i)\b(le|les|une|du|des|et|dans|avec|sous|qui|der|das|und|ein|eine|einem|einer|ist|mit|im|auf|el|los|las|y|con|del"
    r"|por|il|gli|che|di|nel|och|het|een|van|na|uma|com|em)\b"
)
_BREAKS_OFF = re.compile(r"(?i)\b(a|an|the|of|and|with|or|from|to|into|as|while|this|its|their|is|are|be|at|than)\W*$")
_ORDER = re.compile(
    r"(?i)\b(then|after\w*|before|first\w*|followed|follows|following|later|next|finally|begins|ends)\b"
)
_BACKWARDS = re.compile(r"(?i)(?<!^)\b(after|preceded|following)\b")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.!'’-–—")


def wrong_with(text: str, facts: ClipFacts) -> str:
    """Why `text` cannot stand for the clip, in a few words; "" where it can."""
    words = re.findall(r"[\w'-]+", text)
    if not words:
        return "empty"
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return "too short" if len(words) < FEWEST_WORDS else "too long"
    own = _own(facts)
    if not _one_sentence(text, words, facts) or _BREAKS_OFF.search(text):
        return "not one plain sentence"
    if _other_than(own, _SPEAKER, text):
        return "speaks of itself"
    if _other_than(own, _FOREIGN, text):
        return "another language"
    if reason := _denies(text, facts, own):
        return reason
    found = stems(text)
    places = [named_at(each, found) for each in facts.told]
    if any(place is None for place in places):
        return "names not all"
    if _repeats(text, facts):
        return "says a sound twice"
    if _stutters(words, facts):
        return "repeats itself"
    if _invented(found, facts):
        return "names another"
    if not facts.level and _other_than(own, _LOUD, text):
        return "tells a loudness that is not known"
    if _counts_wrong(text, facts, own):
        return "tells a number that is not known"
    return _order(text, facts, {each.label: place for each, place in zip(facts.told, places, strict=True)})


def _written(facts: ClipFacts) -> list[str]:
    """The labels of a clip in all their wordings."""
    return [text for each in facts.told for text in (each.label, each.word, *(said.noun for said in each.phrases))]


def _one_sentence(text: str, words: list[str], facts: ClipFacts) -> bool:
    """Whether a text is one sentence in plain letters, beside those that its labels are written with."""
    written = _written(facts)
    names = {word for each in written for word in re.findall(r"[\w'-]+", each) if word[0].isupper()}
    return (
        set(text) <= _PLAIN.union(*written)
        and text[0].isalnum()
        and text[-1] in ".!"
        and not re.search(r"[.!?] *\S", text)
        and sum(word[0].isupper() and word not in {*names, "I"} for word in words[1:]) < 2
    )


def _other_than(own: set[str], pattern: re.Pattern[str], text: str) -> bool:
    """Whether a text has a word of `pattern` that is none of its labels' own."""
    return any(not stems(match[0]).keys() <= own for match in pattern.finditer(text))


def _stutters(words: list[str], facts: ClipFacts) -> bool:
    """Whether a word is said twice at once, or three in a row come again, more often than the clip's sounds do."""
    often = max(facts.times.times.values(), default=1) if facts.times else 1
    own = Counter(three for text in _written(facts) for three in set(_threes(re.findall(r"[\w'-]+", text))))
    said = Counter(three for three in _threes(words) if {stem(word) for word in three} - _FILL)
    twice = any(one.lower() == other.lower() for one, other in pairwise(words))
    return twice or any(count > max(often, own[three]) for three, count in said.items())


def _threes(words: list[str]) -> Iterator[tuple[str, ...]]:
    lower = [word.lower() for word in words]
    return zip(lower, lower[1:], lower[2:], strict=False)


def _denies(text: str, facts: ClipFacts, own: set[str]) -> str:
    """What is wrong with what a text says is not there: only that may be missing of which a label says so."""
    missing = [each for each in facts.told if each.role in ("without", "not")]
    others = [each for each in facts.told if each not in missing]
    spoken_of = []
    for match in _NO.finditer(text):
        behind = re.match(rf"(\W*[\w'-]+){{0,{NEGATED_WORDS}}}", text[match.end() :])
        words = stems(behind[0] if behind else "").keys()
        told = [each for each in missing if any(option <= words for option in _said(each))]
        if not told and stem(match[0]) not in own:
            return "says that something is missing"
        if told and any(option <= words for each in others for option in _said(each)):
            return "names not all"
        spoken_of += told
    return "" if all(each in spoken_of for each in missing) else "names not all"


def _counts_wrong(text: str, facts: ClipFacts, own: set[str]) -> bool:
    """Whether a text tells a number of times, or of things, that is not known."""
    known = set(facts.times.times.values()) if facts.times else set()
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        number = int(word) if word.isdigit() else _NUMBERS.get(word)
        if number is not None and number not in known - {1} and stem(word) not in own:
            return True
    return max(known, default=0) < 3 and _other_than(own, _SOME, text)


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
    own = _own(facts) | set(stems(" ".join(_written(facts))))
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
