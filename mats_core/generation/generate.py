"""From prompts as embeddings to the token ids that the LLM writes."""

from __future__ import annotations

from typing import Any

import torch

from mats_core.generation.settings import DecodingSettings


def generate(
    causal_lm: Any,
    embeddings: torch.Tensor,
    mask: torch.Tensor,
    settings: DecodingSettings,
    *,
    bos: int | None,
    end: int,
) -> list[list[int]]:
    """The ids written after each prompt, the end token included where one was written; at most `max_new_tokens`.

    causal_lm: of `transformers`. embeddings: prompts as the LLM's input vectors [B, T, H], padded on the left; mask:
    bool [B, T], false in the padding. bos, end: ids of the LLM's first and last token. Beam search without sampling,
    as `settings` say: a row's ids depend on its own prompt alone.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    from mats_core.generation.repetition import NoRepetition

    beams: dict[str, Any] = {"length_penalty": settings.length_penalty} if settings.beams > 1 else {}
    ids = causal_lm.generate(
        inputs_embeds=embeddings,
        logits_processor=LogitsProcessorList([NoRepetition(settings.repetition_penalty, settings.no_repeat_ngram)]),
        attention_mask=mask.long(),  # `generate` counts positions from it, so padding takes none
        generation_config=GenerationConfig(
            num_beams=settings.beams,
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=max(settings.min_length - 1, 0) or None,  # min_length counts the BOS
            pad_token_id=end,
            bos_token_id=bos,
            eos_token_id=end,
            **beams,
        ),
    )  # int64 [B, at most max_new_tokens]
    return [row[: row.index(end) + 1] if end in row else row for row in ids.tolist()]
