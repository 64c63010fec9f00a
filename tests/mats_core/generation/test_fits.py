"""Which LLMs the loop answers for, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from mats_core.generation.fits import fits, fits_config
from tests.mats_core.generation.random_llms import random_llm


@pytest.fixture
def llm() -> Any:
    """A llama of its own, to be changed."""
    random_llm.cache_clear()
    yield random_llm("llama", 8, 0)
    random_llm.cache_clear()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_the_kinds_that_are_known(kind: str) -> None:
    assert fits(random_llm(kind, 8, 0), longest=100) is None


def test_a_kind_that_is_not_known() -> None:
    assert (
        fits_config({"model_type": "mamba"}) == "an LLM of type mamba is not one of llama, mistral, qwen2, qwen3, gpt2"
    )


def test_code_of_its_own(llm: Any) -> None:
    class Own(type(llm)):  # type: ignore[misc]
        pass

    llm.__class__ = Own
    assert fits(llm) == f"its code, {__name__}, is not transformers' own"
    assert fits_config({"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "own.Own"}}) is not None


def test_attention_that_takes_no_mask(llm: Any) -> None:
    llm.config._attn_implementation = "flash_attention_2"
    assert fits(llm) == "its attention, flash_attention_2, takes no mask of beams"
    llm.config._attn_implementation = "eager"
    assert fits(llm) is None


def test_positions_that_depend_on_neighbours(llm: Any) -> None:
    llm.config.rope_scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert fits(llm) == "its positions (dynamic) depend on the longest text read with it"


def test_a_window_that_is_reached() -> None:
    mistral = random_llm("mistral", 8, 0)
    mistral.config.sliding_window = 64
    assert fits(mistral, longest=64) is None
    assert fits(mistral, longest=65) == "it looks back 64 tokens, and prompt and answer may have 65"
    mistral.config.sliding_window = None
    assert fits(mistral, longest=65) is None


def test_a_window_by_the_file_alone() -> None:
    qwen = {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}
    assert fits_config(qwen, longest=65) is None
    assert fits_config(qwen | {"use_sliding_window": True}, longest=65) is not None
    assert fits_config(qwen | {"layer_types": ["full_attention", "sliding_attention"]}, longest=65) is not None
