"""What an LLM may not write: tokens again and again, n-grams twice, its end too soon. Tensors in, tensors out."""

from __future__ import annotations

import math

import torch

from mats_core.generation.settings import DecodingSettings


def apply_rules(
    scores: torch.Tensor, written: torch.Tensor, steps: torch.Tensor, settings: DecodingSettings, end: int
) -> torch.Tensor:
    """The scores of the next token under the settings' rules, changed in place and returned.

    scores: float32 [S, B, V], log-probabilities (logits where one token is simply taken: see `Beams.choose`). written:
    int64 [S, B, W], of which the first `steps` [S] of a slot are what each of its beams has written; the rest may hold
    any token, and a slot that is done, whose scores matter to nobody, may have more steps than W. Equal to
    transformers' `MinNewTokensLength`, `RepetitionPenalty` and `NoRepeatNGram` in this order.
    """
    shortest = settings.min_length - 1  # min_length counts the BOS
    if shortest > 0:
        scores[..., end].masked_fill_((steps < shortest)[:, None], -math.inf)
    penalty, ngram, width = settings.repetition_penalty, settings.no_repeat_ngram, written.shape[2]
    if penalty == 1.0 and not ngram:
        return scores
    positions = torch.arange(width, device=scores.device)
    real = (positions < steps[:, None])[:, None]  # [S, 1, W]
    tokens = torch.where(real, written, written[..., :1])  # what is not written is the first token once more
    found = scores.gather(2, tokens)  # [S, B, W]
    changed = found
    if penalty != 1.0:
        changed = torch.where(found < 0, found * penalty, found / penalty)
        changed = torch.where(steps[:, None, None] > 0, changed, found)
    if ngram:
        again = real & (positions >= ngram - 1)  # does this token end an n-gram that begins as the next one would?
        for back in range(1, ngram):
            last = written.gather(2, (steps - back).clamp_(0, width - 1)[:, None, None].expand(-1, written.shape[1], 1))
            again = again & torch.nn.functional.pad(written[..., : max(0, width - back)] == last, (min(back, width), 0))
        changed = torch.where(again, -math.inf, changed)
    # a token that stands there twice may be banned at one of its places only: the least of them counts
    return scores.scatter_reduce_(2, tokens, changed, "amin", include_self=False)
