"""`mats benchmark generate`: the same prompts by transformers' `generate`, in batches, and by the beam loop, in slots.

The shipped model answers captions of the embedded world. The larger LLM, a LLaMA of 106 M parameters, has random
weights and would never end an answer. So its output layer lets the end become likelier with the position: both ways
see the same logits, and lengths are spread about their mean as the shipped model's are (told beside the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.benchmarks.inputs import random_llama, world_captions
from jobs.benchmarks.measuring import device_name, print_figures, print_table, say, timed
from mats_core.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from mats_core.generation.settings import DecodingSettings

LLMS = ("builtin", "100m")
LLAMA = {"vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8}
PROMPT, BOS, END = 76, 1, 2
"""Vectors of a prompt of the released model; ids of the LLaMA."""
ENDS_AT, ENDS_OVER = 36, 25.0
"""The token at which the end is as likely as not, and over how many tokens that comes about."""


@dataclass
class Asked:
    """An LLM, its prompts [T, H], how they are answered, and the ids of its first and last token."""

    causal_lm: Any
    prompts: list[torch.Tensor]
    settings: DecodingSettings
    bos: int | None
    end: int


def run_benchmark(
    llms: Sequence[str], requests: int, batches: Sequence[int], slots: Sequence[int], as_json: bool
) -> int:
    """Measure and print; 1 where the two ways do not write the same. Raises SettingsError."""
    if requests < 1:
        raise SettingsError("requests", f"{requests} cannot be measured", "choose at least 1")
    unknown = [name for name in llms if name not in LLMS]
    if unknown:
        raise SettingsError("llm", f'there is no "{unknown[0]}"', f"choose {' or '.join(LLMS)}")
    import torch

    figures: dict[str, Any] = {"requests": requests, "device": device_name(torch.device("cpu"))}
    for name in llms:
        figures[name] = side_by_side(name, builtin(requests) if name == "builtin" else random(requests), batches, slots)
    print_figures(figures, as_json, print_report)
    return 0 if all(figures[name]["equal"] == requests for name in llms) else 1


def builtin(requests: int) -> Asked:
    """The shipped model and captions of its world, which it reads as it would hear them."""
    import torch

    from mats_core import load_model

    model = load_model("builtin", device="cpu")
    assert model.encoder is not None
    with torch.inference_mode():
        heard = model.encoder.embed_text(list(world_captions(requests)))  # [requests, D]
        prompts = model.prompt_vectors(heard, [model.prompt("caption")] * requests)
    return Asked(model.causal_lm, prompts, model.config.decoding, model.tokenizer.bos_token_id, model.tokens.eos)


def random(requests: int, **sizes: int) -> Asked:
    """A LLaMA of random weights that ends its answers, and random prompts. sizes: over those of LLAMA."""
    import torch

    from mats_core.generation.settings import DecodingSettings

    chosen = {**LLAMA, "num_attention_heads": 12, **sizes}
    llm = random_llama(torch.device("cpu"), **chosen).eval().requires_grad_(False)
    torch.nn.init.normal_(
        llm.lm_head.weight, std=2.5 / chosen["hidden_size"] ** 0.5
    )  # logits as far apart as a trained LLM's
    make_it_end(llm)
    generator = torch.Generator().manual_seed(2)
    prompts = list(0.02 * torch.randn(requests, PROMPT, chosen["hidden_size"], generator=generator))
    return Asked(llm, prompts, DecodingSettings(), BOS, END)


def make_it_end(llm: Any) -> None:
    """Let the end's logit rise with the position, from far below the others to far above them."""

    seen: dict[str, torch.Tensor] = {}

    def look(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen["positions"] = given["position_ids"]  # int64 [B, T]

    def lift_end(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        """logits: [B, the last of T, vocabulary]."""
        step = seen["positions"][:, -logits.shape[1] :] - (PROMPT - 1)
        logits[..., END] += 11.0 + 8.0 * ((step - ENDS_AT) / ENDS_OVER).clamp(min=-4.0)
        return logits

    llm.register_forward_pre_hook(look, with_kwargs=True)
    llm.lm_head.register_forward_hook(lift_end)


def side_by_side(name: str, asked: Asked, batches: Sequence[int], slots: Sequence[int]) -> dict[str, Any]:
    """Answers/s of both ways at each size, one after the other; the ratio of the best, and how many are equal."""
    from mats_core.generation.generate import generated
    from mats_core.generation.writer import Writer

    writer = Writer(asked.causal_lm, bos=asked.bos, end=asked.end)

    def by_generate(size: int) -> list[list[int]]:
        rows: list[list[int]] = []
        for at in range(0, len(asked.prompts), size):
            batch = asked.prompts[at : at + size]
            rows += generated(asked.causal_lm, batch, asked.settings, bos=asked.bos, end=asked.end)
        return rows

    def by_loop(size: int) -> list[list[int]]:
        return [each.ids for each in writer.write(asked.prompts, asked.settings, slots=size)]

    writer.write(asked.prompts[:2], asked.settings)  # what is made once is not measured
    rates: dict[str, dict[int, float]] = {"generate": {}, "loop": {}}
    found: dict[str, list[list[int]]] = {}
    for way, sizes, run in (("generate", batches, by_generate), ("loop", slots, by_loop)):
        for size in sizes:
            found[way], seconds = timed(partial(run, size))
            rates[way][size] = round(len(asked.prompts) / seconds, 2)
            say(f"{name}: {way}, {size} at a time: {rates[way][size]} answers/s")
    best = {way: max(each.values()) for way, each in rates.items()}
    lengths = [len(row) for row in found["generate"]]
    return {
        "parameters": sum(weight.numel() for weight in asked.causal_lm.parameters()),
        "beams": asked.settings.beams,
        "prompt": len(asked.prompts[0]),
        "tokens": {
            "mean": round(float(np.mean(lengths)), 1),
            **{f"p{at}": int(np.percentile(lengths, at)) for at in (10, 50, 90, 100)},
        },
        "answers_per_s": rates,
        "ratio": round(best["loop"] / best["generate"], 2),
        "equal": sum(one == other for one, other in zip(found["generate"], found["loop"], strict=True)),
    }


def print_report(figures: dict[str, Any]) -> None:
    """A table for each LLM."""
    for name in (name for name in LLMS if name in figures):
        each = figures[name]
        rates = each["answers_per_s"]
        sizes = sorted({*rates["generate"], *rates["loop"]})
        rows = []
        for way, label in (("generate", "transformers' generate, batch"), ("loop", "beam loop, slots")):
            rows.append((label, *(f"{rates[way][size]:.2f}" if size in rates[way] else "" for size in sizes)))
        print_table(f"{name}, {each['parameters'] / 1e6:.1f} M parameters: answers/s", ("", *map(str, sizes)), rows)
        tokens = ", ".join(f"{key} {value}" for key, value in each["tokens"].items())
        print(f"tokens an answer: {tokens}; equal: {each['equal']} of {figures['requests']}")
        print(f"best beside best: {each['ratio']:.2f} ×")
