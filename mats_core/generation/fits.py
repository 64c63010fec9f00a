"""Which LLMs the beam loop is right for."""

from __future__ import annotations

from typing import Any

KINDS = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
"""Held to transformers' own `generate` by tests: their attention takes a mask of any shape and positions as given."""


def fits(causal_lm: Any, longest: int = 0) -> str | None:
    """None where the beam loop gives this LLM's answers, else why `transformers`' own `generate` is used.

    longest: tokens of prompt and answer together; an LLM that looks back only so far fits where they are fewer.
    """
    config = causal_lm.config.get_text_config()
    kind, attention = config.model_type, config._attn_implementation
    if kind not in KINDS or not type(causal_lm).__module__.startswith("transformers."):
        return f"an LLM of type {kind} is not one of {', '.join(KINDS)}"
    if attention != "sdpa" and (attention != "eager" or kind == "gpt2"):
        return f"its attention, {attention}, takes no mask of beams"
    if len(set((getattr(causal_lm, "hf_device_map", None) or {}).values())) > 1:
        return "it lies on several devices"
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    scaling = str(rope.get("rope_type", rope.get("type", "default")))
    if scaling in ("dynamic", "longrope"):
        return f"its positions ({scaling}) depend on the longest text read with it"
    layers = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in layers or (not layers and kind == "mistral")
    if window and slides and longest > window:
        return f"it looks back {window} tokens, and prompt and answer may have {longest}"
    return None
