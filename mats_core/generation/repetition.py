"""Rules against repetition while the LLM writes."""

from __future__ import annotations

import math

import torch
from transformers import LogitsProcessor


class NoRepetition(LogitsProcessor):
    """Repetition penalty and banned n-grams over the tokens written so far, for the whole batch at once.

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
