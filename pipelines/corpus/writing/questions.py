"""Questions about a clip whose answers follow from its labels and their times alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.corpus.writing.captions import NUMBERS
from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import Entry, article, pick_pattern

WHICH = {
    "sound": (
        "Which sounds can be heard?", "What sounds are in this clip?", "Name the sounds in the recording.",
        "Which sound events occur?", "What makes the sounds in this audio?", "What can be heard here?",
    ),
    "scene": (
        "Where was this recorded?", "Which acoustic scene is this?", "What place does this sound like?",
        "In what surroundings was this recorded?", "Which environment is heard?", "Name the scene of this recording.",
    ),
    "emotion": (
        "Which emotion does the speaker express?", "How does the speaker feel?", "What is the emotion of the voice?",
        "What mood is the speaker in?", "Which emotion is heard in the speech?", "How does the person sound?",
    ),
    "instrument": (
        "Which instruments can be heard?", "What instrument is played?", "Name the instruments in this clip.",
        "Which instrument makes this sound?", "What is being played here?", "What instruments are in the recording?",
    ),
    "genre": (
        "Which genre is this music?", "What kind of music is this?", "Name the genre of this piece.",
        "What style of music is played?", "To which genre does this track belong?", "How would you class this music?",
    ),
    "music": (
        "Which tags describe this music?", "How would you tag this piece?", "What characterizes this music?",
        "Name the qualities of this track.", "What describes this music?", "Which words fit this piece of music?",
    ),
}  # fmt: skip
"""What a set's labels name → ways to ask for them."""

COUNT = (
    "How many different sounds can be heard?", "How many kinds of sound are there?",
    "How many distinct sounds does the clip contain?", "What is the number of different sounds in this recording?",
)  # fmt: skip
OFTEN = (
    "How many times can {n} be heard?", "How often can {n} be heard?",
    "How many times does the clip contain {n}?", "Count the times that {n} can be heard.",
)  # fmt: skip
FIRST = (
    "What is heard first?", "Which sound comes first?", "What sound does the recording begin with?",
    "Which of the sounds starts first?",
)  # fmt: skip
PRESENT = (
    "Can {n} be heard?", "{be} there {n} in this clip?", "Do you hear {n}?", "Does the clip contain {n}?",
    "{be} {n} audible?", "Does the recording feature {n}?",
)  # fmt: skip
PRESENT_WORD = {
    "genre": (
        "Is this {w} music?", "Does this sound like {w} music?", "Would you call this {w} music?",
        "Is {w} music playing?", "Can {w} music be heard?", "Does the clip contain {w} music?",
    ),
    "adjective": (
        "Is the sound {w}?", "Does this sound {w}?", "Would you describe this as {w}?",
        "Is this a recording that sounds {w}?", "Does {w} describe what is heard?", "Would {w} be the word for this?",
    ),
    "place": (
        "Was this recorded {w}?", "Does it sound as if this was recorded {w}?", "Is this a recording made {w}?",
        "Was the microphone {w}?", "Could one hear this {w}?", "Are these the sounds heard {w}?",
    ),
    "emotion": (
        "Does the speaker sound {w}?", "Is the speaker {w}?", "Is this {an_w} voice?",
        "Does the voice sound {w}?", "Is {an_w} person speaking?", "Would you call the tone of voice {w}?",
    ),
}  # fmt: skip
ALIKE = {"voice": "sound"}
"""Subjects that are asked about as another is."""


class Question(NamedTuple):
    """A question, its answer, its kind (which, present, count, often, first) and the pattern it was made with.

    counted: the label of which the clip's caption must tell how often it is heard, else "".
    """

    question: str
    answer: str
    kind: str
    pattern: str
    counted: str = ""


def question(
    subject: str,
    heard: Sequence[Entry],
    answers: Sequence[str],
    absent: Sequence[Entry],
    often: Sequence[tuple[Entry, int]],
    first: str,
    draws: Draws,
) -> Question:
    """One question about a clip of a set about `subject`.

    heard: what the clip's caption names. answers: the words for all its labels. absent: labels that it has not and that
    occur near those that it has. often: sounds and how many times each is heard, where that is known. first: the words
    for the one that comes first, "" where that is not known. Of presence, yes and no are asked equally often.
    """
    about = ALIKE.get(subject, subject)
    asked = [each for each in heard if askable(each)]
    kinds = ["which", *["present"] * (2 if asked and absent else 0)]
    kinds += ["count"] if about == "sound" and len(heard) > 1 else []
    kinds += ["often"] if often else []
    kinds += ["first"] if first and len(heard) > 1 else []
    kind = draws.pick(kinds)
    if kind == "present":
        yes = draws.below(2)
        pattern, text = presence(draws.pick(asked if yes else absent), draws)
        return Question(text, "yes" if yes else "no", kind, pattern)
    if kind == "often":
        entry, number = draws.pick(often)
        pattern = draws.pick(OFTEN)
        return Question(pattern.format(n=draws.pick(entry.phrases).noun), _number(number), kind, pattern, entry.label)
    pattern = draws.pick({"which": WHICH[about], "count": COUNT, "first": FIRST}[kind])
    answer = {"which": ", ".join(answers), "count": _number(len(heard)), "first": first}[kind]
    return Question(pattern, answer, kind, pattern)


def askable(entry: Entry) -> bool:
    """Whether one can ask if this is there: not of what music is without, is not, or is for."""
    return bool(entry.phrases) or entry.role in PRESENT_WORD


def presence(entry: Entry, draws: Draws) -> tuple[str, str]:
    """The pattern and the question whether `entry` is there."""
    if entry.role in PRESENT_WORD:
        pattern = draws.pick(PRESENT_WORD[entry.role])
        return pattern, pattern.format(w=entry.word, an_w=article(entry.word))
    said = draws.pick(entry.phrases)
    pattern = pick_pattern(PRESENT, said.noun, draws)
    if said.acts and pattern.endswith((" heard?", " audible?")):  # no "can a flute being played be heard?"
        said = next((each for each in entry.phrases if not each.acts), said)
    return pattern, pattern.format(n=said.noun, be="Are" if said.plural else "Is")


def _number(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else str(number)
