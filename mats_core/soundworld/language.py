# ruff: noqa: E501 - tables of wordings read better in one line each
"""What is said of a clip: captions in many wordings, label lists, music descriptions, questions and answers.

``Content`` holds the facts a text may use. Two captions of one ``Content`` say the same in other words, so a
model trained on text alone is never asked for something its input caption does not tell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.recipe import Recipe


@dataclass(frozen=True)
class Words:
    """How a kind is named: noun phrases, clauses, the word a label list uses, and what to look for when parsing."""

    label: str
    nouns: tuple[str, ...]
    clauses: tuple[str, ...]
    pattern: str


def _words(label: str, nouns: str, clauses: str, pattern: str) -> Words:
    return Words(label, tuple(nouns.split("|")), tuple(clauses.split("|")), pattern)


WORDS: dict[str, Words] = {
    "rain": _words("rain", "rain|falling rain|a rain shower", "rain falls|rain is pouring|it is raining", r"rain"),
    "wind": _words("wind", "wind|blowing wind|gusts of wind", "wind blows|the wind is howling|wind gusts", r"wind"),
    "thunder": _words("thunder", "thunder|rolling thunder|a thunderclap", "thunder rumbles|thunder rolls|thunder cracks", r"thunder"),
    "bird": _words("bird", "a bird|bird song|a chirping bird", "a bird chirps|a bird is singing|a bird tweets", r"bird"),
    "dog": _words("dog", "a dog|a barking dog|dog barks", "a dog barks|a dog is barking|a dog woofs", r"dog"),
    "cat": _words("cat", "a cat|a meowing cat|cat calls", "a cat meows|a cat is meowing|a cat cries", r"\bcat\b"),
    "cricket": _words("cricket", "a cricket|cricket chirps|a stridulating cricket", "a cricket stridulates|a cricket is calling|a cricket sings", r"cricket"),
    "frog": _words("frog", "a frog|a croaking frog|frog calls", "a frog croaks|a frog is croaking|a frog calls", r"frog"),
    "engine": _words("engine", "an engine|a running engine|engine noise", "an engine runs|an engine is idling|an engine hums", r"engine"),
    "saw": _words("saw", "a saw|a buzzing saw|saw noise", "a saw buzzes|a saw is cutting|a saw whines", r"\bsaw\b"),
    "siren": _words("siren", "a siren|a wailing siren|siren wails", "a siren wails|a siren is sounding|a siren howls", r"siren"),
    "alarm": _words("alarm", "an alarm|a beeping alarm|alarm beeps", "an alarm beeps|an alarm is going off|an alarm sounds", r"alarm"),
    "telephone": _words("telephone", "a telephone|a ringing telephone|telephone rings", "a telephone rings|a telephone is ringing|a telephone trills", r"telephone"),
    "bell": _words("bell", "a bell|a tolling bell|bell strokes", "a bell tolls|a bell is struck|a bell chimes", r"\bbell"),
    "knock": _words("knock", "knocking|knocks on wood|a knock at a door", "someone knocks|someone is knocking|a door is knocked on", r"knock"),
    "clock": _words("clock", "a clock|a ticking clock|clock ticks", "a clock ticks|a clock is ticking|a clock ticks away", r"clock"),
    "footsteps": _words("footsteps", "footsteps|the sound of footsteps|footsteps on a floor", "footsteps are heard|footsteps pass|footsteps approach", r"footstep"),
    "drops": _words("drops", "drops of water|dripping drops|water drops", "drops fall|water drops drip|drops are dripping", r"drops"),
    "glass": _words("glass", "breaking glass|shattering glass|a glass crash", "glass breaks|glass shatters|glass is smashed", r"glass"),
    "tone": _words("tone", "a tone|a steady tone|a held tone", "a tone sounds|a tone is held|a tone hums on", r"\btone\b"),
    "melody": _words("melody", "a melody|a simple melody|melody notes", "a melody plays|a melody is played|a melody sounds", r"melody"),
    "drum": _words("drum", "a drum|a drum beat|drum hits", "a drum plays|a drum beats|a drum is struck", r"drum"),
    "voice": _words("voice", "a voice|a speaking voice|voice sounds", "a voice speaks|a voice is talking|a voice says something", r"voice"),
    "applause": _words("applause", "applause|a round of applause|applause from a crowd", "applause breaks out|applause is heard|applause fills the room", r"applause"),
}  # fmt: skip
_PATTERNS = {kind: re.compile(w.pattern, re.IGNORECASE) for kind, w in WORDS.items()}
PITCH_WORDS = {"low": ("low", "deep", "low-pitched"), "high": ("high", "high-pitched")}
RATE_WORDS = {"slow": ("slow", "unhurried"), "fast": ("fast", "rapid", "quick")}
RATE_ADVERBS = {"slow": ("slowly", "at a slow pace"), "fast": ("rapidly", "at a fast pace", "quickly")}
GROUP_WORDS = {"weather": "weather", "animal": "an animal", "machine": "a machine", "alarm": "a signal", "music": "music", "person": "a person"}  # fmt: skip
NUMBERS = ("zero", "one", "two", "three")


@dataclass(frozen=True)
class Sound:
    """A kind and what is said of it (None: left open)."""

    kind: str
    pitch: str | None = None
    rate: str | None = None


@dataclass(frozen=True)
class Content:
    """The facts of a clip that its texts may use.

    layout: see `Recipe`, and ``minute``: a long sound of which only what is in it can be told.
    """

    layout: str
    sounds: tuple[Sound, ...]

    @classmethod
    def of(cls, recipe: Recipe, rng: np.random.Generator, attributes: float = 0.5) -> Content:
        """The facts of a recipe; each telling pitch or rate is kept with probability ``attributes``."""
        sounds = []
        for event in recipe.events:
            pitch = event.pitch_word if rng.random() < attributes else None
            rate = event.rate_word if rng.random() < attributes else None
            sounds.append(Sound(event.kind, pitch, rate))
        return cls(recipe.layout, tuple(sounds))

    def swapped(self) -> Content:
        """The same sounds with the order of the first two turned round."""
        return Content(self.layout, (self.sounds[1], self.sounds[0], *self.sounds[2:]))

    @property
    def kinds(self) -> list[str]:
        """The kinds of sound, in the order of the sounds."""
        return [s.kind for s in self.sounds]

    @property
    def in_order(self) -> list[Sound]:
        """The sounds whose order in time one hears; empty when there is no such order."""
        if self.layout == "sequence":
            return list(self.sounds)
        return list(self.sounds[:-1]) if self.layout == "background" else []


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _noun(sound: Sound, rng: np.random.Generator) -> str:
    noun = _pick(rng, WORDS[sound.kind].nouns)
    adjectives = [
        _pick(rng, words[value])
        for words, value in ((RATE_WORDS, sound.rate), (PITCH_WORDS, sound.pitch))
        if value is not None
    ]
    if not adjectives:
        return noun
    article, _, rest = noun.partition(" ")
    if article in ("a", "an"):
        return f"{'an' if adjectives[0][0] in 'aeiou' else 'a'} {' '.join(adjectives)} {rest}"
    return f"{' '.join(adjectives)} {noun.removeprefix('the sound of ')}"


def _clause(sound: Sound, rng: np.random.Generator) -> str:
    clause = _pick(rng, WORDS[sound.kind].clauses)
    if sound.pitch is not None:
        article, _, rest = clause.partition(" ")
        if article not in ("a", "an"):
            return _noun(sound, rng) + " is heard"
        clause = f"a {_pick(rng, PITCH_WORDS[sound.pitch])} {rest}"
    if sound.rate is not None:
        clause = f"{clause} {_pick(rng, RATE_ADVERBS[sound.rate])}"
    return clause


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(content: Content, rng: np.random.Generator) -> str:
    """One sentence that says what is heard and, where there is one, in which order."""
    n = [_noun(s, rng) for s in content.sounds]
    c = [_clause(s, rng) for s in content.sounds]
    if content.layout == "single":
        text = _pick(rng, [c[0], f"{n[0]} is heard" if not n[0].endswith("s") else f"{n[0]} can be heard", f"the sound of {n[0]}", f"a recording of {n[0]}", f"only {n[0]}"])  # fmt: skip
    elif content.layout == "together":
        order = list(rng.permutation(len(n)))
        n, c = [n[i] for i in order], [c[i] for i in order]
        rest = _listed(n[1:])
        text = _pick(rng, [f"{c[0]} while {_listed(c[1:])}", f"{_listed(n)} at the same time", f"{n[0]} together with {rest}", f"{_listed(n)} are heard all at once", f"{c[0]} along with {rest}"])  # fmt: skip
    elif content.layout == "sequence":
        then = ", then ".join(n)
        options = [", then ".join(c), f"first {then}", " followed by ".join(n), f"{n[0]}, and after that {', and after that '.join(n[1:])}"]  # fmt: skip
        if len(n) == 2:
            options += [f"{n[1]} after {n[0]}", f"{n[0]} before {n[1]}"]
        text = _pick(rng, options)
    elif content.layout == "minute":
        rest = f", and {_listed(n[1:])} can be heard too" if n[1:] else ""
        text = _pick(rng, [f"{_listed(n)} can be heard", f"there {'are' if n[1:] else 'is'} {_listed(n)}", f"{c[0]}{rest}", f"{_listed(n)}, on and off"])  # fmt: skip
    else:
        over = n[-1]
        text = _pick(rng, [f"{n[0]} followed by {n[1]}, with {over} throughout", f"{c[0]}, then {c[1]}, while {c[-1]} all along", f"over {over}, {n[0]} and then {n[1]}", f"{n[0]}, then {n[1]}, with {over} in the background"])  # fmt: skip
    return text[0].upper() + text[1:] + "."


def recipe_caption(recipe: Recipe) -> str:
    """The caption of a recipe: the first draw of its own seed, out of many wordings."""
    rng = np.random.default_rng([recipe.seed, 11])
    return caption(Content.of(recipe, rng), rng)


def label_text(kinds: list[str]) -> str:
    """A label list: the kinds' label words, sorted, with commas."""
    return ", ".join(sorted(WORDS[k].label for k in kinds))


def parse_kinds(text: str) -> list[str]:
    """The kinds named in a text, in the order of their first mention."""
    found = [(m.start(), kind) for kind, pattern in _PATTERNS.items() if (m := pattern.search(text))]
    return [kind for _, kind in sorted(found)]


def parse_order(text: str) -> list[str]:
    """The kinds a caption puts in an order of time, first to last; empty when it names no order.

    "B after A" counts as A, B; what sounds "throughout", "in the background", "all along" or "over" is left out.
    """
    lowered = text.lower()
    if not re.search(r"\b(then|first|followed|after|before)\b", lowered):
        return []
    lowered = re.sub(r",? (with|while) [^,]*(throughout|in the background|all along)", "", lowered)
    lowered = re.sub(r"^over [^,]*,", "", lowered)
    kinds = parse_kinds(lowered)
    if " after " in lowered and "after that" not in lowered:
        kinds.reverse()
    return kinds


def music_description(content: Content, rng: np.random.Generator) -> str:
    """What a listener for music says: tempo and pitch of the music, what else is heard, or that there is none."""
    music = [s for s in content.sounds if KINDS[s.kind].group == "music"]
    other = [s for s in content.sounds if KINDS[s.kind].group != "music"]
    if not music:
        return f"No music, only {_listed([_noun(s, rng) for s in other])}."
    text = f"Music with {_listed([_noun(s, rng) for s in music])}"
    return f"{text}, and {_listed([_noun(s, rng) for s in other])} besides." if other else f"{text}."


ASKED = {
    "which": ["What sounds are heard?", "Which sounds are in this clip?", "What can be heard?"],
    "count": ["How many different sounds are there?", "How many kinds of sound are heard?"],
    "first": ["Which sound comes first?", "What is heard first?"],
    "last": ["Which sound comes last?", "What is heard last?"],
    "overlap": [
        "Do the sounds come together or one after another?",
        "Are the two sounds together or one after another?",
    ],
}
QUESTION_KINDS = ("which", "count", "first", "last", "presence", "group", "overlap", "pitch", "rate")


def question(
    content: Content, rng: np.random.Generator, only: str | None = None, shares: dict[str, float] | None = None
) -> tuple[str, str, str]:
    """A question about a clip, its answer, and its kind (one of ``QUESTION_KINDS``).

    Yes and no are asked for equally often. ``only`` asks for one kind; where the clip cannot be asked that
    (no order, no attribute told), another kind that it can be asked is taken. ``shares``: how often each kind is
    asked for, of those that a clip can be asked; equally often by default. That of ``overlap`` is of all questions
    of clips of two sounds: weighed against the first and the last, which only some of them have, one of its answers
    would be asked for more often than the other.
    """
    kinds, ordered = content.kinds, content.in_order
    told = {name: [s for s in content.sounds if getattr(s, name)] for name in ("pitch", "rate")}
    possible = ["which", "count", "presence", "group", *(["first", "last"] if ordered else [])]
    possible += [
        *(["overlap"] if len(kinds) == 2 and content.layout != "minute" else []),
        *(name for name, sounds in told.items() if sounds),
    ]
    if only in possible:
        kind = only
    elif shares is None:
        kind = _pick(rng, possible)
    elif "overlap" in possible and rng.random() < shares["overlap"]:
        kind = "overlap"
    else:
        others = [each for each in possible if each != "overlap"]
        weights = np.array([shares[each] for each in others])
        kind = str(rng.choice(others, p=weights / weights.sum()))
    if kind in told:
        sound = told[kind][int(rng.integers(len(told[kind])))]
        name = WORDS[sound.kind].label
        if kind == "pitch":
            return f"Is the pitch of the {name} low or high?", str(sound.pitch), kind
        return f"Is the {name} slow or fast?", str(sound.rate), kind
    if kind in ASKED:
        answers = {
            "which": label_text(kinds),
            "count": NUMBERS[len(kinds)],
            "first": WORDS[ordered[0].kind].label if ordered else "",
            "last": WORDS[ordered[-1].kind].label if ordered else "",
            "overlap": "together" if content.layout == "together" else "one after another",
        }
        return _pick(rng, ASKED[kind]), answers[kind], kind
    yes = bool(rng.random() < 0.5)
    if kind == "presence":
        pool = kinds if yes else [k for k in KINDS if k not in kinds]
        asked = WORDS[_pick(rng, pool)].label
        return _pick(rng, [f"Is there {asked} in this clip?", f"Can {asked} be heard?"]), "yes" if yes else "no", kind
    present = {KINDS[k].group for k in kinds} & set(GROUP_WORDS)
    absent = set(GROUP_WORDS) - present
    yes = yes and bool(present)
    asked = GROUP_WORDS[_pick(rng, sorted(present if yes else absent))]
    return f"Is {asked} heard?", "yes" if yes else "no", kind


def question_kind(asked: str) -> str:
    """Which of ``QUESTION_KINDS`` a question is, by its wording."""
    for kind, wordings in ASKED.items():
        if asked in wordings:
            return kind
    if asked.endswith(" low or high?"):
        return "pitch"
    if asked.endswith(" slow or fast?"):
        return "rate"
    return "group" if asked.endswith(" heard?") and asked.startswith("Is ") else "presence"


def facts_list(content: Content) -> str:
    """All that is told of a clip as a list in few words, in order: "one after another: high dog, slow bell"."""
    how = {"single": "alone", "together": "together", "sequence": "one after another", "background": "over the last"}
    sounds = [" ".join(filter(None, (s.pitch, s.rate, WORDS[s.kind].label))) for s in content.sounds]
    return f"{how[content.layout]}: {', '.join(sounds)}"


def named_once(text: str, rng: np.random.Generator) -> str:
    """The sounds that a text names, each once, in any order and by any of its nouns: "rain, a barking dog"."""
    return ", ".join(_pick(rng, WORDS[kind].nouns) for kind in rng.permutation(parse_kinds(text)))


def corpus_record(
    content: Content, rng: np.random.Generator, task: str, asked: dict[str, float] | None = None
) -> dict[str, str]:
    """One training record (DESIGN.md): the caption that stands for the audio, the question, the answer, the task.

    asked: shares of the kinds of question, see ``question``.
    """
    text, instruction = caption(content, rng), ""
    if task == "QA":
        instruction, output, _ = question(content, rng, shares=asked)
    elif task == "cla_label":
        output = label_text(content.kinds)
    else:
        output = (music_description if task == "music_caption" else caption)(content, rng)
    return {"caption": text, "instruction": instruction, "output": output, "task": task, "source": "soundworld"}
