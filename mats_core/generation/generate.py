"""From prompts as embeddings to the token ids that the LLM writes."""

from __future__ import annotations

import math
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


class NoRepetition:
    """Repetition penalty and banned n-grams over the tokens written so far, for the whole batch: a logits processor.

    Equal to transformers' own two processors. Those of version 5.23 exempt as many of the first tokens as the prompt
    has padding, when the prompt is given as embeddings: an answer would depend on its batch.
    """

    def __init__(self, penalty: float, ngram: int) -> None:
        self.penalty, self.ngram = penalty, ngram

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: int64 [B, tokens written]; scores: [B, vocabulary] → scores."""
        if not input_ids.shape[1]:
            return scores
        if self.penalty != 1.0:
            seen = scores.gather(1, input_ids)
            scores = scores.scatter(1, input_ids, torch.where(seen < 0, seen * self.penalty, seen / self.penalty))
        if 0 < self.ngram <= input_ids.shape[1]:
            written = input_ids.unfold(1, self.ngram, 1)  # [B, n-grams, n]
            start = input_ids[:, input_ids.shape[1] - self.ngram + 1 :]  # what the next n-gram begins with
            again = (written[..., :-1] == start[:, None]).all(-1)
            last = written[..., -1]
            # the least of both, so that an n-gram that is not repeated does not undo another's ban
            banned = torch.where(again, -math.inf, math.inf).to(scores)
            scores = scores.scatter_reduce(1, last, banned, "amin")
        return scores
