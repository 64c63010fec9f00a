"""The beams of many answers at once, each at its own step: which tokens go on, which answers are finished, who is done.

This is beam search as `transformers` does it (`early_stopping=False`), so that the tokens are the same:

- Of a step's B·V continuations the best 2·B are looked at. The best B of them that do not end go on; a beam that must
  not go on loses 1e9, so that ties and the odd case of a vocabulary smaller than 2·B come out alike.
- Only an end among the first B is an answer. Its score is the sum of what the rules made of its log-probabilities, over
  its length to the power of the length penalty; the best B answers are kept.
- A slot is done when all B answers are there and the best running beam, scored at its present length, is no better than
  the worst of them; or at the longest length, where every continuation counts as an end.

With one beam it is greedy search, where transformers lets the rules work on logits rather than log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mats_core.generation.rules import apply_rules
from mats_core.generation.settings import DecodingSettings

OUT = -1.0e9  # what transformers adds to a score that must not win; rounding makes such scores equal
_SUM, _STEP, _PARENT, _TOKEN, _FINISHED = range(5)  # what is known of an answer


@dataclass
class Beams:
    """The state of S slots of B beams; T is the longest answer. All tensors are changed in place.

    steps: int64 [S], tokens that the running beams have; done: bool [S], nothing of the slot changes any more;
    tokens: int64 [S, B], the last of each beam; written: int64 [S, B, T + 1], all of each beam; scores and sums:
    float32 [S, B], of the running beams, under the rules and as the LLM had them; trail_tokens and trail_parents:
    int64 [S, T + 1, B], each step's tokens and the beams they went on from; best: float32 [S, B], scores of finished
    answers, best first, and facts: float64 [S, B, 5], where they are in the trail.
    """

    settings: DecodingSettings
    end: int
    powers: torch.Tensor  # float32 [T + 2]: length to the power of the length penalty
    steps: torch.Tensor
    done: torch.Tensor
    tokens: torch.Tensor
    written: torch.Tensor
    scores: torch.Tensor
    sums: torch.Tensor
    trail_tokens: torch.Tensor
    trail_parents: torch.Tensor
    best: torch.Tensor
    facts: torch.Tensor

    @classmethod
    def empty(cls, slots: int, settings: DecodingSettings, end: int, device: torch.device) -> Beams:
        """Slots without anything to do: all done."""
        beams, longest = settings.beams, settings.max_new_tokens
        powers = [1.0, *(float(length) ** settings.length_penalty for length in range(1, longest + 2))]

        def whole(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def real(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        return cls(
            settings, end, torch.tensor(powers, dtype=torch.float32, device=device),
            whole(slots), torch.ones(slots, dtype=torch.bool, device=device), whole(slots, beams),
            whole(slots, beams, longest + 1), real(slots, beams), real(slots, beams),
            whole(slots, longest + 1, beams), whole(slots, longest + 1, beams), real(slots, beams),
            torch.zeros((slots, beams, 5), dtype=torch.float64, device=device),
        )  # fmt: skip

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in vars(self).items():
            if name not in ("settings", "end", "powers"):
                yield name, value

    def first(self, rows: int) -> Beams:
        """The first slots, as a view."""
        return Beams(self.settings, self.end, self.powers, *(value[:rows] for _, value in self._state()))

    def start(self, rows: torch.Tensor) -> None:
        """Slots [N] begin anew: one beam that has written nothing, and others that cannot win against it."""
        self.steps[rows] = 0
        self.done[rows] = False
        self.sums[rows] = 0.0
        self.scores[rows] = OUT
        self.scores[rows, 0] = 0.0
        self.best[rows] = OUT
        self.facts[rows] = 0.0
        self.facts[rows, :, _STEP] = -1.0

    def move(self, source: int, target: int) -> None:
        """One slot's state takes another's place."""
        for _, value in self._state():
            value[target] = value[source]

    def choose(self, logits: torch.Tensor, width: int) -> torch.Tensor:
        """One step of every slot: the next tokens are chosen. → int64 [S, B], the beam each beam went on from.

        logits: float [S, B, V], changed in place. width: at least the steps of any slot that is not done.
        """
        logits = logits.float()
        width = max(1, width)
        going, length = ~self.done, self.steps + 1
        if self.settings.beams == 1:
            parents, tokens, scores, sums = self._take(logits, width, length)
        else:
            parents, tokens, scores, sums = self._search(logits, width, length)
        past = self.written[..., :width]
        past.copy_(past.gather(1, parents[..., None].expand_as(past)))
        at = self.steps[:, None, None]
        self.written.scatter_(2, at.expand(-1, parents.shape[1], 1), tokens[..., None])
        # note: a slot that is done writes behind its last step, where no answer looks
        self.trail_tokens.scatter_(1, at.expand(-1, 1, parents.shape[1]), tokens[:, None])
        self.trail_parents.scatter_(1, at.expand(-1, 1, parents.shape[1]), parents[:, None])
        self.tokens.copy_(tokens)
        self.scores.copy_(scores)
        self.sums.copy_(sums)
        self.steps.add_(going)
        return parents

    def _take(self, logits: torch.Tensor, width: int, length: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Greedy search. → parents, tokens, scores and sums of the beams that go on, each [S, 1]."""
        own = logits.log_softmax(-1)  # [S, 1, V]
        ruled = apply_rules(logits, self.written[..., :width], self.steps, self.settings, self.end)
        tokens = ruled.argmax(-1)  # [S, 1]
        sums = self.sums + own.gather(2, tokens[..., None])[..., 0]
        over = ((tokens == self.end)[:, 0] | (length >= self.settings.max_new_tokens)) & ~self.done
        parents = torch.zeros_like(tokens)
        facts = self._facts(sums, parents, tokens, over[:, None])
        self.best.copy_(torch.where(over[:, None], sums / self.powers[length][:, None], self.best))
        self.facts.copy_(torch.where(over[:, None, None], facts, self.facts))
        self.done |= over
        return parents, tokens, sums, sums

    def _search(self, logits: torch.Tensor, width: int, length: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Beam search. → parents, tokens, scores and sums of the beams that go on, each [S, B]."""
        slots, beams, vocabulary = logits.shape
        ruled = logits.log_softmax(-1)
        normal = logits[..., :1] - ruled[..., :1]  # [S, B, 1]: a logit less this is the LLM's own log-probability
        ruled = apply_rules(ruled, self.written[..., :width], self.steps, self.settings, self.end)
        top, at = ruled.add_(self.scores[..., None]).view(slots, -1).topk(2 * beams)  # both [S, 2·B]
        parents, tokens = at // vocabulary, at % vocabulary
        own = logits.view(slots, -1).gather(1, at) - normal[..., 0].gather(1, parents)
        sums = self.sums.gather(1, parents) + own

        ends = (tokens == self.end) | (length >= self.settings.max_new_tokens)[:, None]  # [S, 2·B]
        pick = (top + ends * OUT).topk(beams)  # of those that go on
        finished = ends.clone()
        finished[:, beams:] = False
        score = top / self.powers[length][:, None] + ~finished * OUT
        score = torch.where(self.done[:, None], -torch.inf, score)
        self.best.copy_((kept := torch.cat([self.best, score], 1).topk(beams)).values)
        known = torch.cat([self.facts, self._facts(sums, parents, tokens, finished)], 1)  # [S, 3·B, 5]
        self.facts.copy_(known.gather(1, kept.indices[..., None].expand(-1, -1, 5)))

        hope = pick.values[:, :1] / self.powers[length][:, None]  # [S, 1]
        complete = self.facts[..., _FINISHED] > 0
        worst = torch.where(complete, self.best.amin(1, keepdim=True), OUT)  # [S, B]
        self.done |= ~(hope > worst).any(1) | ends.all(1)
        picked = pick.indices
        return parents.gather(1, picked), tokens.gather(1, picked), pick.values, sums.gather(1, picked)

    def _facts(
        self, sums: torch.Tensor, parents: torch.Tensor, tokens: torch.Tensor, finished: torch.Tensor
    ) -> torch.Tensor:
        """What is known of continuations [S, N], in the order of the constants: float64 [S, N, 5]."""
        steps = self.steps[:, None].expand_as(parents)
        return torch.stack([each.double() for each in (sums, steps, parents, tokens, finished)], -1)

    def answers(self, row: int, count: int) -> list[tuple[list[int], float]]:
        """The best finished answers of a slot: (ids, sum of the LLM's own log-probabilities)."""
        found = []
        facts = self.facts[row].tolist()
        longest = 1 + max(int(each[_STEP]) for each in facts)
        tokens, parents = self.trail_tokens[row, :longest].tolist(), self.trail_parents[row, :longest].tolist()
        for rank, (total, step, parent, token, finished) in enumerate(facts):
            if rank and (rank >= count or not finished):
                break
            ids, beam = [int(token)] if step >= 0 else [], int(parent)
            for at in range(int(step) - 1, -1, -1):
                ids.append(tokens[at][beam])
                beam = parents[at][beam]
            found.append((ids[::-1], total))
        return found
