"""Rules against repetition: by hand, and against transformers' own on unpadded prompts."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from mats_core.generation.generate import NoRepetition


def test_penalty_by_hand() -> None:
    # token 0 was written twice and token 2 once: positive scores are halved, negative ones doubled, once each
    scores = NoRepetition(2.0, 0)(torch.tensor([[0, 2, 0]]), torch.tensor([[4.0, 4.0, -1.0]]))
    assert scores.tolist() == [[2.0, 4.0, -2.0]]


def test_banned_bigrams_by_hand() -> None:
    # written 1 2 1 3 1: after 1 came 2 and 3, so neither may come again
    scores = NoRepetition(1.0, 2)(torch.tensor([[1, 2, 1, 3, 1]]), torch.zeros(1, 5))
    assert scores.tolist() == [[0.0, 0.0, -math.inf, -math.inf, 0.0]]


@pytest.mark.parametrize("ngram", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 12])
def test_equal_to_transformers(ngram: int, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, 6, (5, length), generator=generator)
    scores = torch.randn(5, 9, generator=generator)
    expected = scores
    if length:  # theirs fail on nothing written yet
        expected = RepetitionPenaltyLogitsProcessor(2.0)(ids, scores.clone())
        expected = NoRepeatNGramLogitsProcessor(ngram)(ids, expected)
    assert torch.equal(NoRepetition(2.0, ngram)(ids, scores), expected)
