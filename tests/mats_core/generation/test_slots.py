"""How many answers fit: by hand for a LLaMA of 7 B, against the real cache, and as a law."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from mats_core.generation.beam_search import BeamSearch
from mats_core.generation.settings import DecodingSettings
from mats_core.generation.slots import LlmSizes, choose_slots, llm_sizes, reading_bytes, slot_bytes
from tests.tiny import make_tiny_llm

VICUNA = LlmSizes(layers=32, hidden=4096, inner=11008, heads=32, kv_heads=32, head_dim=128, vocabulary=32000)
GIB = 1 << 30


def test_a_llama_of_7_b() -> None:
    """Half a megabyte a column: 32 layers × keys and values × 4096 × 2 bytes. 128 slots of 200 tokens take 59 GB."""
    stated = {
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
        "vocab_size": 32000,
    }  # fmt: skip
    assert llm_sizes(stated) == llm_sizes({"text_config": stated}) == VICUNA
    one = slot_bytes(VICUNA, prompt_tokens=76, answer_tokens=200, beams=4)
    assert one == pytest.approx((76 + 4 * 201) * 2**19, rel=0.06)
    assert 128 * one == pytest.approx(59e9, rel=0.06)
    assert choose_slots(126 * GIB, VICUNA, 76, 200, 4) == 192  # an H200, beside the model
    assert choose_slots(64 * GIB, VICUNA, 76, 200, 4) == 120  # an H100
    assert choose_slots(9 * GIB, VICUNA, 76, 200, 4) == 15  # a card of 24 GB
    assert choose_slots(GIB, VICUNA, 76, 200, 4) == 0
    assert choose_slots(64 * GIB, VICUNA, 76, 200, 4, most=64) == 64


def test_gpt2_has_other_names() -> None:
    found = llm_sizes({"n_layer": 12, "n_embd": 768, "n_head": 12, "n_inner": None, "vocab_size": 50257})
    assert found == LlmSizes(12, 768, 3072, 12, 12, 64, 50257)
    assert llm_sizes({"model_type": "mamba", "hidden_size": 768, "vocab_size": 10}) is None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_counted_is_what_the_cache_takes(kind: str, tmp_path: Path) -> None:
    causal_lm = AutoModelForCausalLM.from_pretrained(make_tiny_llm(tmp_path / "llm", kind)).eval()
    sizes = llm_sizes(causal_lm.config.to_dict())
    assert sizes is not None
    search = BeamSearch(causal_lm, DecodingSettings(beams=3, max_new_tokens=40), end=2, slots=5)
    search.add("one", torch.randn(17, sizes.hidden))
    search.step()
    kept = sum(tensor.nbytes for layer in search._cache.kept for tensor in layer) / 5
    read = 2 * sizes.heads * sizes.head_dim * search._cache.columns * 4
    mask = search._mask.nbytes / 5
    counted = slot_bytes(sizes, 17, 40, 3, number_bytes=4)
    assert counted == kept + read + 2 * mask + 3 * sizes.vocabulary * 16


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    free=st.integers(0, 200 * GIB),
    more=st.integers(0, 20 * GIB),
    prompt=st.integers(1, 500),
    answer=st.integers(1, 400),
    beams=st.integers(1, 8),
)
def test_what_is_chosen_fits_and_grows_with_the_memory(
    free: int, more: int, prompt: int, answer: int, beams: int
) -> None:
    chosen = choose_slots(free, VICUNA, prompt, answer, beams)
    assert chosen * slot_bytes(VICUNA, prompt, answer, beams) + reading_bytes(VICUNA) <= free or chosen == 0
    assert chosen <= choose_slots(free + more, VICUNA, prompt, answer, beams)
    assert chosen >= choose_slots(free, VICUNA, prompt, answer + 1, beams)
    assert chosen < 32 or chosen % 8 == 0
