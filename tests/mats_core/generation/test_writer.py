"""One writer for many callers: their requests share the slots, and none notices the others."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from mats_core.generation import writer as module
from mats_core.generation.settings import DecodingSettings
from mats_core.generation.slots import BESIDE, PROMPT_TOKENS, SPARE, llm_sizes, reading_bytes, slot_bytes
from mats_core.generation.writer import Writer
from tests.mats_core.generation.random_llms import END, random_llm

SETTINGS = DecodingSettings(max_new_tokens=9)
PROMPTS = [torch.randn(3 + at % 5, 32, generator=torch.Generator().manual_seed(at)) for at in range(24)]


@pytest.fixture
def writer() -> Writer:
    return Writer(random_llm("llama", 60, 3), bos=1, end=END)


def test_callers_in_threads_share_the_slots(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [writer.write([prompt], SETTINGS)[0].ids for prompt in PROMPTS]
    made: list[Any] = []

    class Counted(module.BeamSearch):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(module, "beam_search", Counted)
    shared = Writer(writer.causal_lm, bos=1, end=END)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda at: shared.write(PROMPTS[4 * at : 4 * at + 4], SETTINGS, slots=5), range(6)))
    assert [answer.ids for block in found for answer in block] == expected
    assert len(made) == 1


def test_a_copy_writes_with_its_own_weights(writer: Writer) -> None:
    expected = [answer.ids for answer in writer.write(PROMPTS[:3], SETTINGS)]
    copied = copy.deepcopy(writer)
    torch.nn.init.zeros_(writer.causal_lm.get_output_embeddings().weight)
    random_llm.cache_clear()  # nobody else is to have this one
    assert [answer.ids for answer in copied.write(PROMPTS[:3], SETTINGS)] == expected
    assert [answer.ids for answer in writer.write(PROMPTS[:3], SETTINGS)] != expected


def test_a_step_that_fails_is_told_to_its_callers_and_the_next_call_works(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [answer.ids for answer in writer.write(PROMPTS[:3], SETTINGS)]
    with monkeypatch.context() as broken:
        broken.setattr(module.BeamSearch, "_decode", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            writer.write(PROMPTS[:3], SETTINGS)
    assert [answer.ids for answer in writer.write(PROMPTS[:3], SETTINGS)] == expected


def test_an_llm_that_does_not_fit_is_answered_by_transformers(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [answer.ids for answer in writer.write(PROMPTS[:5], SETTINGS)]
    asked: list[int] = []
    monkeypatch.setattr(module, "beam_search", None)
    monkeypatch.setattr(module, "fits", lambda causal_lm, longest: asked.append(longest) or "it does not")
    assert [answer.ids for answer in writer.write(PROMPTS[:5], SETTINGS, slots=2)] == expected
    assert asked == [7 + 9]  # the longest prompt and answer
    assert writer.write([], SETTINGS) == []


def test_slots_are_as_many_as_a_gpus_memory_has_room_for(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free when settings come for the first time decides; a CPU takes what suits it."""
    made: list[int] = []
    real = module.beam_search

    def counted(*args: Any, slots: int, **options: Any) -> Any:
        made.append(slots)
        return real(*args, slots=slots, **options)

    monkeypatch.setattr(module, "beam_search", counted)
    monkeypatch.setattr(module, "free_bytes", lambda device: None)
    expected = [answer.ids for answer in writer.write(PROMPTS, SETTINGS)]
    assert made == [module.CPU_SLOTS]
    sizes = llm_sizes(writer.causal_lm.config.to_dict())
    assert sizes is not None
    one = slot_bytes(sizes, PROMPT_TOKENS, SETTINGS.max_new_tokens, SETTINGS.beams, 4)
    for room, slots in ((0, 1), (5, 5), (10_000, module.CPU_SLOTS)):
        free = BESIDE + int((reading_bytes(sizes, 4) + (room + 0.5) * one) / (1 - SPARE))
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        fresh = Writer(writer.causal_lm, bos=1, end=END)
        assert [answer.ids for answer in fresh.write(PROMPTS, SETTINGS)] == expected
        monkeypatch.setattr(module, "free_bytes", lambda device: 0)  # its own slots have taken it
        fresh.write(PROMPTS[:1], SETTINGS)
        assert made.pop() == slots
        assert len(made) == 1
