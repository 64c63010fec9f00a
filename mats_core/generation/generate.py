"""`transformers`' own `generate`, for LLMs that the beam loop does not fit; and what the loop is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mats_core.generation.beam_search import Written, written
from mats_core.generation.rules import apply_rules
from mats_core.generation.settings import DecodingSettings


@torch.inference_mode()
def generate_by_transformers(
    causal_lm: Any,
    prompts: Sequence[torch.Tensor],
    settings: DecodingSettings,
    *,
    bos: int | None,
    end: int,
    keep: int = 1,
) -> list[Written]:
    """As `Writer.write`, of any LLM, in one batch."""
    keep = min(keep, settings.beams)
    rows = generated(causal_lm, prompts, settings, bos=bos, end=end, keep=keep)
    found = []
    for at, prompt in enumerate(prompts):
        best, *others = rows[at * keep : (at + 1) * keep]
        # transformers fills up with beams that were not finished
        others = [row for row in others if row and (row[-1] == end or len(row) == settings.max_new_tokens)]
        found.append(written([(ids, _log_probability(causal_lm, prompt, ids)) for ids in (best, *others)]))
    return found


@torch.inference_mode()
def generated(
    causal_lm: Any,
    prompts: Sequence[torch.Tensor],
    settings: DecodingSettings,
    *,
    bos: int | None,
    end: int,
    keep: int = 1,
) -> list[list[int]]:
    """The ids of each prompt's `keep` best answers, one after the other."""
    from transformers import GenerationConfig, LogitsProcessorList

    longest = max(len(prompt) for prompt in prompts)
    embeddings = prompts[0].new_zeros((len(prompts), longest, prompts[0].shape[1]))  # [N, T, H]
    mask = torch.zeros((len(prompts), longest), dtype=torch.int64, device=embeddings.device)
    for row, prompt in enumerate(prompts):  # padded on the left, and `generate` counts positions from the mask
        embeddings[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    beams: dict[str, Any] = {}
    if settings.beams > 1:
        beams = {"length_penalty": settings.length_penalty, "num_return_sequences": keep}
    rows = causal_lm.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        logits_processor=LogitsProcessorList([_Rules(settings, end)]),
        generation_config=GenerationConfig(
            num_beams=settings.beams,
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=end,
            bos_token_id=bos,
            eos_token_id=end,
            **beams,
        ),
    )  # int64 [N · keep, at most max_new_tokens]
    return [row[: row.index(end) + 1] if end in row else row for row in rows.tolist()]


def _log_probability(causal_lm: Any, prompt: torch.Tensor, ids: list[int]) -> float:
    """The sum of an answer's log-probabilities, as the LLM has them after its prompt [T, H]."""
    tokens = torch.tensor(ids, dtype=torch.int64, device=prompt.device)
    words = causal_lm.get_input_embeddings()(tokens[:-1]).to(prompt.dtype)
    logits = causal_lm(inputs_embeds=torch.cat([prompt, words])[None], use_cache=False).logits[0, len(prompt) - 1 :]
    return float(logits[: len(ids)].float().log_softmax(-1).gather(1, tokens[:, None]).sum())


class _Rules:
    """The rules as a logits processor. Those of transformers 5.23 exempt as many of the first tokens as the prompt has
    padding, when it is given as embeddings: an answer would depend on its batch."""

    def __init__(self, settings: DecodingSettings, end: int) -> None:
        self.settings, self.end = settings, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: int64 [N, tokens written]; scores: [N, vocabulary] → scores."""
        count, width = input_ids.shape
        steps = torch.full((count,), width, device=scores.device)
        written = input_ids[:, None] if width else input_ids.new_zeros((count, 1, 1))
        return apply_rules(scores[:, None], written, steps, self.settings, self.end)[:, 0]
