"""How many answers a device has room for at once: numbers in, a number out. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_SLOTS = 192
"""More answers at once fill no GPU better."""
PREFILL_TOKENS = 8192
"""Tokens of prompts that are read at once."""
PROMPT_TOKENS = 128
"""Tokens of a prompt, the sound's vectors included, that room is kept for."""
BESIDE = 4_000_000_000
"""Bytes left to what works beside an LLM: an encoder that hears 64 windows takes 3.5 GB."""
SPARE = 0.08
"""Share of the free memory that is left alone: what an allocator cannot hand out in one piece."""


@dataclass(frozen=True)
class LlmSizes:
    """Sizes of a causal LLM: `inner` is the width within a layer's MLP, `head_dim` of one attention head."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


def llm_sizes(config: Mapping[str, Any]) -> LlmSizes | None:
    """The sizes that a `config.json` states, by the names of LLaMA and its like or of GPT-2; None where it does not."""
    stated = config.get("text_config")
    values = stated if isinstance(stated, dict) else config

    def size(*names: str) -> int:
        found = (values.get(name) for name in names)
        return next((value for value in found if type(value) is int and value > 0), 0)

    layers, hidden = size("num_hidden_layers", "n_layer"), size("hidden_size", "n_embd")
    heads, vocabulary = size("num_attention_heads", "n_head"), size("vocab_size")
    if not (layers and hidden and heads and vocabulary):
        return None
    return LlmSizes(
        layers, hidden, size("intermediate_size", "n_inner") or 4 * hidden, heads,
        size("num_key_value_heads") or heads, size("head_dim") or hidden // heads, vocabulary,
    )  # fmt: skip


def slot_bytes(llm: LlmSizes, prompt_tokens: int, answer_tokens: int, beams: int, number_bytes: int = 2) -> int:
    """What one answer takes while it is written: keys and values of its prompt and of every beam's every step, and of
    one layer once more as attention reads them; the mask; and log-probabilities of every beam, some times over."""
    columns = prompt_tokens + beams * (answer_tokens + 1)
    columns += -columns % 64
    kept = 2 * llm.layers * llm.kv_heads * llm.head_dim * columns * number_bytes
    read = 2 * llm.heads * llm.head_dim * columns * number_bytes
    mask = 2 * beams * columns * number_bytes
    scores = beams * llm.vocabulary * 4 * 4  # float32: logits, log-probabilities, under the rules, sorted
    return kept + read + mask + scores


def reading_bytes(llm: LlmSizes, number_bytes: int = 2) -> int:
    """What it takes to read prompts, as many at once as are read: the widest of what a layer makes of them."""
    return PREFILL_TOKENS * (4 * llm.inner + 8 * llm.hidden) * number_bytes


def choose_slots(
    free_bytes: int,
    llm: LlmSizes,
    prompt_tokens: int,
    answer_tokens: int,
    beams: int,
    number_bytes: int = 2,
    most: int = MOST_SLOTS,
) -> int:
    """How many answers can be written at once in `free_bytes`, beside a model that is there already; 0: not even one.

    prompt_tokens, answer_tokens: of the longest of each; number_bytes: of one of the LLM's numbers. From 32 on it is a
    multiple of eight, as a GPU's kernels like it.
    """
    room = int(free_bytes * (1 - SPARE)) - reading_bytes(llm, number_bytes)
    fitting = max(0, min(most, room // slot_bytes(llm, prompt_tokens, answer_tokens, beams, number_bytes)))
    return fitting if fitting < 32 else fitting - fitting % 8
