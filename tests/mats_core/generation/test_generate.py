"""Answers to many prompts: the loop and transformers' own way give the same, scores included."""

from __future__ import annotations

import pytest
import torch

from mats_core.generation.generate import generate_by_transformers
from mats_core.generation.settings import DecodingSettings
from mats_core.generation.writer import Writer
from tests.mats_core.generation.random_llms import END, by_transformers, random_llm

PROMPTS = [torch.randn(length, 32, generator=torch.Generator().manual_seed(length)) for length in (3, 11, 6, 9, 4)]


def writer() -> Writer:
    """A writer by the loop."""
    return Writer(random_llm("llama", 60, 3), bos=1, end=END)


@pytest.mark.parametrize("beams", [1, 4])
def test_both_ways_give_the_same(beams: int) -> None:
    llm, settings = random_llm("llama", 60, 3), DecodingSettings(beams=beams, max_new_tokens=9)
    ours = Writer(llm, bos=1, end=END).write(PROMPTS, settings, slots=2, keep=3)
    theirs = generate_by_transformers(llm, PROMPTS, settings, bos=1, end=END, keep=3)
    assert len({tuple(answer.ids) for answer in ours}) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert len(one.others) == len(other.others) == (2 if beams > 1 else 0)
        for mine, its in zip((one, *one.others), (other, *other.others), strict=True):
            assert mine.ids == its.ids
            assert mine.logprob_sum == pytest.approx(its.logprob_sum, abs=1e-4)
            assert mine.logprob_mean == pytest.approx(mine.logprob_sum / len(mine.ids))


def test_without_rules_beams_are_ranked_by_their_mean_log_probability() -> None:
    settings = DecodingSettings(beams=3, max_new_tokens=9, repetition_penalty=1.0, no_repeat_ngram=0)
    llm = random_llm("llama", 60, 3)
    for prompt, answer in zip(PROMPTS, Writer(llm, bos=1, end=END).write(PROMPTS, settings, keep=3), strict=True):
        _, scores = by_transformers(llm, prompt, settings)
        assert [each.logprob_mean for each in (answer, *answer.others)] == pytest.approx(scores, abs=1e-5)


def test_an_end_token_is_the_last_and_lengths_are_kept() -> None:
    for answer in writer().write(PROMPTS, DecodingSettings(max_new_tokens=9)):
        assert END not in answer.ids[:-1]
        assert answer.ids[-1] == END or len(answer.ids) == 9
    for answer in writer().write(PROMPTS, DecodingSettings(max_new_tokens=9, min_length=10)):
        assert len(answer.ids) == 9  # min_length counts the BOS
