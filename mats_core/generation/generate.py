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
    from transformers import GenerationConfig, LogitsProcessorList

    longest, keep = max(len(prompt) for prompt in prompts), min(keep, settings.beams)
    embeddings = prompts[0].new_zeros((len(prompts), longest, prompts[0].shape[1]))  # [N, T, H]
    mask = torch.zeros((len(prompts), longest), dtype=torch.int64, device=embeddings.device)
    for row, prompt in enumerate(prompts):  # padded on the left, and `generate` counts positions from the mask
        embeddings[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    beams: dict[str, Any] = {}
    if settings.beams > 1:
        beams = {"length_penalty": settings.length_penalty, "num_return_sequences": keep}
    made = causal_lm.generate(
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
            return_dict_in_generate=True,
            output_scores=settings.beams > 1,
            **beams,
        ),
    )
    rows = made.sequences.tolist()  # [N · keep, at most max_new_tokens]
    rows = [row[: row.index(end) + 1] if end in row else row for row in rows]
    sums = _log_probabilities(causal_lm, [prompt for prompt in prompts for _ in range(keep)], rows, end)
    means = [total / max(1, len(row)) ** settings.length_penalty for total, row in zip(sums, rows, strict=True)]
    scores = made.sequences_scores.tolist() if settings.beams > 1 else means
    answers = list(zip(rows, sums, scores, strict=True))
    return [written(answers[at : at + keep]) for at in range(0, len(answers), keep)]


def _log_probabilities(causal_lm: Any, prompts: Sequence[torch.Tensor], rows: list[list[int]], end: int) -> list[float]:
    """The sum of each answer's log-probabilities, as the LLM has them after its prompt."""
    embed = causal_lm.get_input_embeddings()
    found = []
    for prompt, ids in zip(prompts, rows, strict=True):
        tokens = torch.tensor(ids, dtype=torch.int64, device=prompt.device)
        whole = torch.cat([prompt, embed(tokens[:-1]).to(prompt.dtype)])[None]  # [1, T + tokens − 1, H]
        logits = causal_lm(inputs_embeds=whole, use_cache=False).logits[0, len(prompt) - 1 :].float()
        found.append(float(logits.log_softmax(-1).gather(1, tokens[:, None]).sum()) if ids else 0.0)
    return found


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
