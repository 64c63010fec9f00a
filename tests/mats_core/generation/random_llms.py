"""Random LLMs, prompts and settings, and what transformers' own `generate` makes of them, one prompt at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from mats_core.generation.settings import DecodingSettings

END = 2


@lru_cache(maxsize=64)
def random_llm(kind: str, vocabulary: int, seed: int) -> Any:
    """A small random LLM whose end token is about as likely as any word, so that answers differ in length."""
    if kind == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"num_key_value_heads": 2 if seed % 2 else 4, "max_position_embeddings": 128}
        if kind == "qwen3":
            sizes["head_dim"] = 8
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=vocabulary, initializer_range=0.3, tie_word_embeddings=False
    )
    llm = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        llm.get_output_embeddings().weight[END] *= 1.5
    llm.generation_config = GenerationConfig()
    return llm


@dataclass(frozen=True)
class Case:
    """Prompts [T, H] for one LLM, the order in which they come, and how they are answered."""

    kind: str
    vocabulary: int
    seed: int
    lengths: tuple[int, ...]
    slots: int
    look_every: int
    at_once: int  # requests that wait before the first step; the others come one a step
    settings: DecodingSettings

    @property
    def llm(self) -> Any:
        """The LLM, made once."""
        return random_llm(self.kind, self.vocabulary, self.seed)

    @property
    def prompts(self) -> list[torch.Tensor]:
        """The prompts, float32 [T, 32] each."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        return [torch.randn(length, 32, generator=generator) for length in self.lengths]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case; the odd ones too: fewer words than beams look at, nothing but bans, answers of one token."""
    longest = draw(st.integers(1, 12))
    settings = DecodingSettings(
        beams=draw(st.integers(1, 8)),
        max_new_tokens=longest,
        min_length=draw(st.one_of(st.just(1), st.integers(0, longest + 1))),
        no_repeat_ngram=draw(st.sampled_from([0, 1, 2, 2, 3, 4])),
        repetition_penalty=draw(st.sampled_from([0.7, 1.0, 1.2, 2.0, 2.0])),
        length_penalty=draw(st.sampled_from([-1.0, 0.0, 0.6, 1.0, 1.0, 2.0])),
    )
    return Case(
        kind=draw(st.sampled_from(["llama", "llama", "mistral", "qwen2", "qwen3", "gpt2"])),
        vocabulary=draw(st.sampled_from([8, 17, 60, 400])),
        seed=draw(st.integers(0, 9)),
        # note: after a prompt of one vector transformers 4.57 reads that vector a second time, not the token it wrote
        lengths=tuple(draw(st.lists(st.integers(2, 12), min_size=1, max_size=4))),
        slots=draw(st.integers(1, 4)),
        look_every=draw(st.sampled_from([1, 1, 3])),
        at_once=draw(st.integers(1, 4)),
        settings=settings,
    )


@torch.inference_mode()
def by_transformers(llm: Any, prompt: torch.Tensor, settings: DecodingSettings) -> tuple[list[list[int]], list[float]]:
    """The ids of all beams, best first, and their scores (0 of greedy search), by `generate` with its own rules."""
    rules = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        rules.append(_AfterTheFirst(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)))
    if settings.no_repeat_ngram:
        rules.append(_AfterTheFirst(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram)))
    beams: dict[str, Any] = {}
    if settings.beams > 1:
        beams = {"length_penalty": settings.length_penalty, "num_return_sequences": settings.beams}
    made = llm.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        logits_processor=rules,
        generation_config=GenerationConfig(
            num_beams=settings.beams,
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=max(settings.min_length - 1, 0) or None,
            pad_token_id=END,
            eos_token_id=END,
            return_dict_in_generate=True,
            output_scores=True,
            **beams,
        ),
    )
    rows = [row[: row.index(END) + 1] if END in row else row for row in made.sequences.tolist()]
    return rows, (made.sequences_scores.tolist() if settings.beams > 1 else [0.0])


class _AfterTheFirst:
    """A rule of transformers, which fails where nothing is written yet."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.rule(input_ids, scores) if input_ids.shape[1] else scores
