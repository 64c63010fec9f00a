"""Prompts and answers as ids with room for the sound, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mats_core.errors import SettingsError
from mats_core.model.tokens import PromptTokens

CPU = torch.device("cpu")


class Letters:
    """A tokenizer of letters: a is 10, b is 11, …; 1 begins, 2 ends."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, Any]:
        return {"input_ids": [ord(letter) - ord("a") + 10 for letter in text]}


@pytest.fixture
def tokens() -> PromptTokens:
    return PromptTokens(Letters(), vectors=2, max_target_tokens=3)


def test_for_the_loss_padding_is_on_the_right(tokens: PromptTokens) -> None:
    batch = tokens.for_loss(["a<SpeechHere>b", "<SpeechHere>"], ["c", "abcd"], CPU)
    assert batch.ids.tolist() == [[1, 10, 0, 0, 11, 12, 2], [1, 0, 0, 10, 11, 12, 0]]
    assert batch.sound.int().tolist() == [[0, 0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0]]
    assert batch.lengths == [7, 6]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[-100] * 5 + [12, 2], [-100] * 3 + [10, 11, 12] + [-100]]  # cut to 3: no end
    assert batch.first_target == 3


def test_prompts_alone(tokens: PromptTokens) -> None:
    batch = tokens.for_generation(["a<SpeechHere>b", "<SpeechHere>"], CPU)
    assert batch.ids.tolist() == [[1, 10, 0, 0, 11], [1, 0, 0, 0, 0]]
    assert batch.sound.int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
    assert batch.lengths == [5, 3]
    assert batch.targets is None


def test_a_prompt_has_one_place_for_the_sound(tokens: PromptTokens) -> None:
    for wrong in ("ab", "<SpeechHere><SpeechHere>"):
        with pytest.raises(SettingsError, match=r"prompt: .*write <SpeechHere> exactly once"):
            tokens.prompt(wrong)
