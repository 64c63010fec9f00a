"""The beam loop against transformers' own `generate`: the same tokens, whatever shares the slots."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mats_core.generation.beam_search import BeamSearch, Written
from tests.mats_core.generation.random_llms import END, Case, by_transformers, cases

OUT = -1e8  # transformers fills up with beams that never finished, and gives them scores below


def answers(case: Case, keep: int = 8) -> list[Written]:
    """What the loop writes after each prompt of a case."""
    search = BeamSearch(case.llm, case.settings, end=END, slots=case.slots, keep=keep, look_every=case.look_every)
    waiting = list(enumerate(case.prompts))
    for key, prompt in waiting[: case.at_once]:
        search.add(key, prompt)
    waiting, found = waiting[case.at_once :], {}
    while search.busy or waiting:
        if waiting:
            search.add(*waiting.pop(0))
        found.update(search.step())
    return [found[key] for key in range(len(case.lengths))]


def check(case: Case) -> None:
    """Every prompt's best answer and the others that finished, against transformers' for this prompt alone."""
    for prompt, answer in zip(case.prompts, answers(case), strict=True):
        rows, scores = by_transformers(case.llm, prompt, case.settings)
        if scores[0] < OUT:
            continue  # the rules leave no continuation at all: theirs is a beam that rounding chose, not an answer
        assert answer.ids == rows[0]
        finished = [row for row, score in zip(rows, scores, strict=True) if score > OUT]
        assert [each.ids for each in (answer, *answer.others)] == finished


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_the_same_tokens_as_transformers(case: Case) -> None:
    check(case)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
@settings(max_examples=250, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_the_same_tokens_as_transformers_at_length(part: int, case: Case) -> None:
    check(case)
