"""A warning before a question that a model answers worse than who always gives the usual answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.soundworld.doubts import doubt, worse_than_usual

CARD = """# Model card
| questions, count | 0.780 | answer prior 0.387; 173 questions |
| questions, presence | {right} | answer prior 0.483; 174 questions |
"""


@pytest.fixture
def weak(tmp_path: Path) -> str:
    (tmp_path / "MODEL_CARD.md").write_text(CARD.format(right="0.443"))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("question", "asks_for_presence"),
    [
        ("Is there rain?", True),
        ("is there a siren in this clip?", True),
        ("Are there any birds", True),
        ("Can you hear a dog?", True),
        ("Can a siren be heard?", True),
        ("Is a cat audible?", True),
        ("Does the recording contain speech?", True),
        ("Is there more than one sound?", False),
        ("How many different sounds are there?", False),
        ("What is heard first?", False),
        ("Is the bell slow or fast?", False),
        ("Which sounds are there?", False),
    ],
)
def test_questions_for_a_sound_are_known_as_such(weak: str, question: str, asks_for_presence: bool) -> None:
    assert bool(doubt(weak, question)) == asks_for_presence


def test_the_warning_has_the_figures_of_the_card(weak: str, tmp_path: Path) -> None:
    assert "44% right beside 48%" in doubt(weak, "Is there rain?")
    assert worse_than_usual(weak) == {"presence": (0.443, 0.483)}
    good = tmp_path / "good"
    good.mkdir()
    assert doubt(str(good), "Is there rain?") == "", "without a card nothing is known"
    (good / "README.md").write_text(CARD.format(right="0.9"))
    worse_than_usual.cache_clear()
    assert doubt(str(good), "Is there rain?") == ""
    assert doubt("https://nowhere.invalid/model", "Is there rain?") == ""


def test_the_shipped_model_is_doubted_as_its_card_says() -> None:
    """Whatever a later model measures: the warning follows."""
    assert bool(doubt("builtin", "Is there rain?")) == ("presence" in worse_than_usual("builtin"))
