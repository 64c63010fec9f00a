"""Which LLMs the beam loop is right for. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
"""Held to transformers' own `generate` by tests: their attention takes a mask of any shape and positions as given."""


def fits(causal_lm: Any, longest: int = 0) -> str | None:
    """None where the beam loop gives this LLM's answers, else why `transformers`' own `generate` is used.

    longest: tokens of prompt and answer together; an LLM that looks back only so far fits where they are fewer.
    """
    config = causal_lm.config.get_text_config()
    if not type(causal_lm).__module__.startswith("transformers."):
        return f"its code, {type(causal_lm).__module__}, is not transformers' own"
    attention = config._attn_implementation
    if attention != "sdpa" and (attention != "eager" or config.model_type == "gpt2"):
        return f"its attention, {attention}, takes no mask of beams"
    if len(set((getattr(causal_lm, "hf_device_map", None) or {}).values())) > 1:
        return "it lies on several devices"
    return fits_config(config.to_dict(), longest)


def fits_config(config: Mapping[str, Any], longest: int = 0) -> str | None:
    """As `fits`, by what the `config.json` of an LLM says."""
    kind = config.get("model_type")
    if config.get("auto_map"):
        return "it brings code of its own"
    if kind not in KINDS:
        return f"an LLM of type {kind} is not one of {', '.join(KINDS)}"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type")) if isinstance(rope, Mapping) else None
    if scaling in ("dynamic", "longrope"):
        return f"its positions ({scaling}) depend on the longest text read with it"
    layers, window = config.get("layer_types"), config.get("sliding_window")
    slides = kind == "mistral" or config.get("use_sliding_window")
    if isinstance(layers, list) and layers:
        slides = "sliding_attention" in layers
    if isinstance(window, int) and slides and longest > window:
        return f"it looks back {window} tokens, and prompt and answer may have {longest}"
    return None
