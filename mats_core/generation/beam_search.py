"""Beam search over many prompts at once, fed and emptied while it runs; on a CPU and a GPU the same code.

    add ──▶ waiting ──prefill──▶ slots ⟲ decode ──▶ finished answers

A slot holds one request: its prompt is read once, its beams share it, and it leaves as soon as its own answer is
finished, whatever the other slots do. Every step runs one forward of the LLM over the beams of all slots, with no
transfer to the host; only which slots are done is read, every `look_every` steps.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch

from mats_core.generation.beams import Beams
from mats_core.generation.settings import DecodingSettings
from mats_core.generation.tree_cache import TreeCache

_PREFILL_TOKENS = 8192  # read at once: bounds the memory that prompts take while they are read


@dataclass(frozen=True)
class Written:
    """An answer: its token ids, the end token included where it was written.

    logprob_sum, logprob_mean: of the LLM's own log-probabilities of these tokens, as it had them before the rules
    against repetition. others: the other beams' answers, best first, where asked for; fewer where fewer were finished.
    """

    ids: list[int]
    logprob_sum: float
    logprob_mean: float
    others: tuple[Written, ...] = ()


def written(answers: list[tuple[list[int], float]]) -> Written:
    """The first of (ids, sum of log-probabilities), with the others inside."""
    best, *others = [Written(ids, total, total / max(1, len(ids))) for ids, total in answers]
    return replace(best, others=tuple(others))


class BeamSearch:
    """Writes answers to prompts as `settings` say, `slots` at a time. `fits(causal_lm)` says whether it can.

        search = BeamSearch(causal_lm, settings, end=2, slots=16)
        search.add("a", prompt)
        while search.busy:
            for key, answer in search.step(): ...

    end: id of the LLM's last token. keep: how many of a request's best answers are given. look_every: steps between two
    looks at what is done: one costs nothing on a CPU, but a GPU would wait for it. An answer is a function of its own
    prompt, whatever shares the slots.
    """

    def __init__(
        self,
        causal_lm: Any,
        settings: DecodingSettings,
        *,
        end: int,
        slots: int,
        keep: int = 1,
        look_every: int | None = None,
    ) -> None:
        self.causal_lm, self.settings, self.end, self.slots, self.keep = causal_lm, settings, end, slots, keep
        self._embed = causal_lm.get_input_embeddings()
        self.device = self._embed.weight.device
        self.look_every = look_every or (1 if self.device.type == "cpu" else 4)
        self._waiting: deque[tuple[Hashable, torch.Tensor]] = deque()
        self._keys: list[Any] = [None] * slots  # (key,) where a slot is taken
        self._lengths, self._steps = [0] * slots, [0] * slots  # of each slot: of its prompt; steps made at most
        self._beams = Beams.empty(slots, settings, end, self.device)
        self._cache = TreeCache(slots, 0)
        self._cache_name = "cache" if "cache" in inspect.signature(causal_lm.forward).parameters else "past_key_values"
        self._prompts = torch.ones(slots, dtype=torch.int64, device=self.device)
        self._inputs = torch.zeros(0)  # [slots, B, H]: what the LLM reads next
        self._mask = torch.zeros(0)  # [slots, 1, B, columns]: 0 where a beam sees, -inf where not

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being written."""
        return bool(self._waiting) or self.running > 0

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return sum(key is not None for key in self._keys)

    @property
    def free(self) -> int:
        """Slots that nothing waits for: what may be added before requests have to wait."""
        return max(0, self.slots - self.running - len(self._waiting))

    def add(self, key: Hashable, prompt: torch.Tensor) -> None:
        """A request: the vectors [T, H] that the LLM reads, without padding. It waits until a slot is free."""
        self._waiting.append((key, prompt))

    def clear(self) -> list[Any]:
        """Forget everything, as after a step that failed; the keys of what was not answered."""
        forgotten = [key[0] for key in self._keys if key is not None] + [key for key, _ in self._waiting]
        self._keys = [None] * self.slots
        self._waiting.clear()
        return forgotten

    @torch.inference_mode()
    def step(self) -> list[tuple[Any, Written]]:
        """Prefill what waits where slots are free, decode `look_every` steps, and give what finished: (key, answer)."""
        self._admit()
        rows = max((row + 1 for row, key in enumerate(self._keys) if key is not None), default=0)
        if not rows:
            return []
        for _ in range(self.look_every):
            self._advance(rows)
        return self._collect(rows)

    def _admit(self) -> None:
        """Requests that wait take the slots that are free, when enough are."""
        free = [row for row, key in enumerate(self._keys) if key is None]
        if not self._waiting or (
            len(free) < min(len(self._waiting), max(1, self.slots // 8)) and len(free) < self.slots
        ):
            return
        while free and self._waiting:
            longest = 0
            group: list[tuple[int, Hashable, torch.Tensor]] = []
            while free and self._waiting:
                longest = max(longest, len(self._waiting[0][1]))
                if group and longest * (len(group) + 1) > _PREFILL_TOKENS:
                    break
                group.append((free.pop(0), *self._waiting.popleft()))
            self._prefill(group)

    def _prefill(self, group: list[tuple[int, Hashable, torch.Tensor]]) -> None:
        """Read all of the prompts but their last vectors, which the first step decodes. group: (slot, key, prompt)."""
        lengths = [len(prompt) for _, _, prompt in group]
        longest, beams = max(lengths), self.settings.beams
        self._reserve(longest, group[0][2])
        rows = torch.tensor([row for row, _, _ in group], device=self.device)
        count = torch.tensor(lengths, device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence(
            [prompt for _, _, prompt in group], batch_first=True
        )  # [N, longest, H]
        if longest > 1:
            # Padding is on the right, where no token of the prompt looks.
            causal = torch.full((longest - 1, longest - 1), -torch.inf, dtype=padded.dtype, device=self.device).triu(1)
            self._cache.prefill(rows)
            positions = torch.arange(longest - 1, device=self.device).expand(len(group), -1)
            self._read(self.causal_lm.base_model, padded[:, :-1], causal[None, None], positions)
        self._prompts[rows] = count
        self._inputs[rows] = padded[torch.arange(len(group), device=self.device), count - 1][:, None]
        seen = torch.arange(self._cache.columns, device=self.device) < (count - 1)[:, None]  # [N, columns]
        self._mask[rows] = (
            torch.where(seen, 0.0, -torch.inf).to(self._mask.dtype)[:, None, None].expand(-1, 1, beams, -1)
        )
        self._beams.start(rows)
        for (row, key, _), length in zip(group, lengths, strict=True):
            self._keys[row], self._lengths[row], self._steps[row] = (key,), length, 0

    def _reserve(self, longest: int, prompt: torch.Tensor) -> None:
        """Make room for prompts of this length and their answers."""
        beams, longest_answer = self.settings.beams, self.settings.max_new_tokens
        columns = longest - 1 + beams * (longest_answer + 1)
        if not len(self._inputs):
            self._inputs = prompt.new_zeros((self.slots, beams, prompt.shape[1]))
        if columns > self._cache.columns:
            columns += -columns % 64
            mask = prompt.new_full((self.slots, 1, beams, columns), -torch.inf)
            if self._cache.columns:
                mask[..., : self._cache.columns] = self._mask
            self._mask = mask
            self._cache.grow(columns)

    def _read(self, module: Any, inputs: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> Any:
        given = {"inputs_embeds": inputs, "attention_mask": mask, "position_ids": positions, "use_cache": True}
        return module(**given, **{self._cache_name: self._cache})

    def _advance(self, rows: int) -> None:
        """One step of the first slots."""
        beams, longest = self.settings.beams, self.settings.max_new_tokens
        taken = [row for row in range(rows) if self._keys[row] is not None]
        width = max(self._steps[row] for row in taken)
        columns = max(self._lengths[row] - 1 + beams * (self._steps[row] + 1) for row in taken)
        self._decode(rows, columns, width)
        for row in taken:
            self._steps[row] = min(self._steps[row] + 1, longest)

    def _decode(self, rows: int, columns: int, width: int) -> None:
        """Read the beams' last tokens, choose the next ones. Shapes depend on the arguments alone, and nothing is
        transferred to the host.

        rows: how many slots; columns: of the cache, that they look at; width: tokens that the beams have at most.
        """
        beams = self._beams.first(rows)
        count = self.settings.beams
        begun = self._prompts[:rows] - 1  # [rows], the column and the position of the first step
        own = (begun + beams.steps * count)[:, None] + torch.arange(count, device=self.device)  # [rows, B]
        own.clamp_(max=columns - 1)  # slots that are free may have gone further
        mask = self._mask[:rows, ..., :columns]
        mask.scatter_(3, own[:, None, :, None], 0.0)
        places = torch.arange(rows, device=self.device)[:, None] * self._cache.columns + own
        self._cache.decode(rows, columns, places.flatten())
        positions = begun + beams.steps.clamp(max=self.settings.max_new_tokens - 1)
        positions = positions[:, None].expand(-1, count)
        logits = self._read(self.causal_lm, self._inputs[:rows], mask, positions).logits  # [rows, B, V]
        parents = beams.choose(logits, width)
        if count > 1:
            mask.copy_(mask.gather(2, parents[:, None, :, None].expand_as(mask)))
        self._inputs[:rows] = self._embed(beams.tokens)

    def _collect(self, rows: int) -> list[tuple[Any, Written]]:
        """The answers that are finished; their slots become free."""
        done = self._beams.done[:rows].tolist()
        found = []
        for row in range(rows):
            if done[row] and self._keys[row] is not None:
                found.append((self._keys[row][0], written(self._beams.answers(row, self.keep))))
                self._keys[row] = None
        if found and not self._waiting:
            self._pack()
        return found

    def _pack(self) -> None:
        """Move slots together, so that those which stay free cost nothing."""
        taken = [row for row, key in enumerate(self._keys) if key is not None]
        for target in range(len(taken)):
            if self._keys[target] is None:
                source = taken.pop()
                self._beams.move(source, target)
                columns = self._lengths[source] - 1 + self.settings.beams * self._steps[source]
                self._cache.move(source, target, columns)
                for tensor in (self._prompts, self._inputs, self._mask):
                    tensor[target] = tensor[source]
                for values in (self._keys, self._lengths, self._steps):
                    values[target] = values[source]
                self._keys[source] = None
