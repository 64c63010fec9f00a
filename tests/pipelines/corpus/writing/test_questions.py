"""Questions of every kind, for every subject."""

from __future__ import annotations

import pytest

from pipelines.corpus.writing.draws import Draws
from pipelines.corpus.writing.phrases import entry
from pipelines.corpus.writing.questions import Question, askable, presence, question


def asked(
    subject: str, *labels: str, absent: tuple[str, ...] = (), first: str = "", number: int = 400
) -> list[Question]:
    heard = [entry(subject, label) for label in labels]
    often = [(heard[0], 3)] if first else []
    missing = [entry(subject, label) for label in absent]
    return [question(subject, heard, labels, missing, often, first, Draws(str(at))) for at in range(number)]


def test_every_kind_is_asked_with_its_answer() -> None:
    found = asked("sound", "Bark", "Rain", absent=("Meow",), first="bark")
    answers = {kind: {each.answer for each in found if each.kind == kind} for kind in {each.kind for each in found}}
    assert answers == {
        "which": {"Bark, Rain"},
        "present": {"yes", "no"},
        "count": {"two"},
        "often": {"three"},
        "first": {"bark"},
    }
    for each in found:
        if each.kind == "present":
            about_rest = any(word in each.question for word in ("bark", "dog", "rain"))
            assert (each.answer == "yes") == about_rest
    assert {each.counted for each in found if each.kind == "often"} == {"Bark"}


@pytest.mark.parametrize(
    ("subject", "label", "other"),
    [
        ("sound", "Walk, footsteps", "Bark"),
        ("scene", "park", "office"),
        ("emotion", "angry", "sad"),
        ("genre", "rock", "jazz"),
        ("music", "slow", "loud"),
        ("instrument", "drums", "flute"),
        ("voice", "Cough", "Sneeze"),
    ],
)
def test_there_are_twelve_wordings_and_none_has_more_than_its_share(subject: str, label: str, other: str) -> None:
    patterns = [each.pattern for each in asked(subject, label, absent=(other,), number=3000)]
    assert len(set(patterns)) >= 12
    assert max(patterns.count(pattern) for pattern in set(patterns)) / len(patterns) <= 0.15


@pytest.mark.parametrize(
    ("subject", "label", "other", "expected"),
    [
        ("sound", "Walk, footsteps", "Bark", {"Are there footsteps in this clip?", "Is a bark audible?"}),
        (
            "scene",
            "park",
            "office",
            {"Was this recorded in a park?", "Was the microphone in an office?"},
        ),
        ("emotion", "angry", "sad", {"Is this an angry voice?", "Does the speaker sound sad?"}),
        ("genre", "rock", "jazz", {"Is this rock music?", "Would you call this jazz music?"}),
        ("music", "slow", "loud", {"Is the sound slow?", "Does this sound loud?"}),
        ("instrument", "drums", "flute", {"Are drums audible?", "Do you hear a flute?"}),
        ("voice", "Cough", "Sneeze", {"Do you hear a cough?", "Is there a person sneezing in this clip?"}),
    ],
)
def test_presence_is_asked_in_the_words_of_the_subject(
    subject: str, label: str, other: str, expected: set[str]
) -> None:
    assert expected <= {each.question for each in asked(subject, label, absent=(other,))}


def test_nobody_asks_for_what_music_is_without() -> None:
    assert not askable(entry("music", "no vocals")) and not askable(entry("music", "not rock"))
    assert askable(entry("music", "vocals"))
    assert {each.kind for each in asked("music", "no vocals", absent=("piano",))} == {"which"}


def test_a_count_is_not_asked_of_one_sound() -> None:
    assert {each.kind for each in asked("sound", "Bark", absent=("Meow",))} == {"which", "present"}
    assert presence(entry("sound", "Bark"), Draws("x"))[1].endswith("?")
