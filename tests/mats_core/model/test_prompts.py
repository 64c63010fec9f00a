"""Prompts letter for letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from mats_core.model.prompts import INSTRUCTIONS, TASKS, WORDINGS, family, format_prompt, training_prompt


def test_prompt_of_the_release() -> None:
    assert format_prompt(INSTRUCTIONS["caption"]) == (
        "USER: <Speech><SpeechHere></Speech> Describe the following audio in a caption.\nASSISTANT:"
    )
    assert format_prompt("what instrument is playing?", "[open ended]") == (
        "USER: <Speech><SpeechHere></Speech> [open ended] what instrument is playing?\nASSISTANT:"
    )


def test_braces_in_a_question_are_just_text() -> None:
    assert "{request} {0}" in format_prompt("{request} {0}")


def test_training_prompts() -> None:
    draws = {training_prompt("caption", "", "", draw) for draw in range(50)}
    assert len(draws) == len(WORDINGS["varied"]["caption"])
    assert training_prompt("audiocaption", "", "[t]", 7, "fixed") == format_prompt(INSTRUCTIONS["caption"], "[t]")
    assert "how many?" in training_prompt("audio_qa", "how many?", "", 0)
    with pytest.raises(SettingsError):
        training_prompt("audio_qa", "", "", 0)
    with pytest.raises(SettingsError):
        training_prompt("caption", "", "", 0, "poetic")


def test_the_references_wordings_are_five_a_family_with_the_recorded_ones(reference_dir: Path) -> None:
    recorded = json.loads((reference_dir / "train_forward.json").read_text())
    families = [family(task) for task in recorded["samples"]["task"]]
    for kind, prompt in zip(families, recorded["prompts"], strict=True):
        words = WORDINGS["reference"].get(kind, ("{}",))
        assert prompt in {format_prompt(each) for each in words}
    for kind, words in WORDINGS["reference"].items():
        assert len(words) == len(set(words)) == 5 and words[0] == INSTRUCTIONS[kind]
    assert set(WORDINGS["reference"]) == set(TASKS) - {"QA"}


def test_families_cover_every_task() -> None:
    assert {family(task) for task in TASKS} == set(TASKS)
    assert family("Emotion event") == "cla_label"
    with pytest.raises(SettingsError):
        family("speech")
