"""Rules against repetition: by hand, and against transformers' own, each beam of each slot at its own step."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from mats_core.generation.rules import apply_rules
from mats_core.generation.settings import DecodingSettings

END = 1


def ruled(written: list[int], scores: list[float], **values: float) -> list[float]:
    """The scores of what comes after these tokens of one beam."""
    settings = DecodingSettings(**{"no_repeat_ngram": 0, "repetition_penalty": 1.0} | values)
    tokens, steps = torch.tensor([[[*written, 0, 0]]]), torch.tensor([len(written)])  # 0 behind: not written
    return apply_rules(torch.tensor([[scores]]), tokens, steps, settings, END)[0, 0].tolist()


def test_penalty_by_hand() -> None:
    # token 0 was written twice and token 2 once: positive scores are halved, negative ones doubled, once each
    assert ruled([0, 2, 0], [4.0, 4.0, -1.0], repetition_penalty=2.0) == [2.0, 4.0, -2.0]
    assert ruled([2], [4.0, 4.0, -1.0], repetition_penalty=2.0) == [4.0, 4.0, -2.0]
    assert ruled([], [4.0, 4.0, -1.0], repetition_penalty=2.0) == [4.0, 4.0, -1.0]


def test_banned_bigrams_by_hand() -> None:
    # written 1 2 1 3 1: after 1 came 2 and 3, so neither may come again
    assert ruled([1, 2, 1, 3, 1], [0.0] * 5, no_repeat_ngram=2) == [0.0, 0.0, -math.inf, -math.inf, 0.0]


def test_an_end_too_soon_by_hand() -> None:
    # min_length counts the BOS: with 3 there are at least two tokens before the end
    assert [ruled(written, [0.0] * 3, min_length=3)[END] for written in ([], [0], [0, 2])] == [-math.inf, -math.inf, 0]


@pytest.mark.parametrize("ngram", [1, 2, 3, 4])
def test_equal_to_transformers(ngram: int) -> None:
    generator = torch.Generator().manual_seed(ngram)
    written = torch.randint(0, 6, (9, 3, 13), generator=generator)  # [slots, beams, tokens]
    scores = torch.randn(9, 3, 8, generator=generator)
    steps = torch.tensor([0, 1, 2, 3, 4, 5, 8, 12, 13])
    settings = DecodingSettings(repetition_penalty=2.0, no_repeat_ngram=ngram)
    found = apply_rules(scores.clone(), written, steps, settings, END)
    for slot, step in enumerate(steps.tolist()):
        expected = scores[slot]
        if step:  # theirs fail on nothing written yet
            expected = RepetitionPenaltyLogitsProcessor(2.0)(written[slot, :, :step], expected.clone())
            expected = NoRepeatNGramLogitsProcessor(ngram)(written[slot, :, :step], expected)
        assert torch.equal(found[slot], expected)
