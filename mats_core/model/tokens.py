"""Prompts and answers as token sequences with room for the sound's vectors.

Rows are padded on the right: under causal attention nothing before the padding can see it, so no mask is needed and a
row's loss or answer cannot depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mats_core.errors import SettingsError
from mats_core.model.prompts import SPEECH
from mats_core.pretrained import panics_told

_CACHED = 200_000  # distinct texts remembered; then forgotten all at once


@dataclass
class Sequences:
    """A batch of token ids with gaps for the vectors.

    ids: int64 [B, T] (padding and gaps hold an id that is never read); sound: bool [B, T], true in the gaps;
    lengths: of each row, without padding; targets: int64 [B, T], -100 where nothing is learned, and first_target: the
    first column that holds one.
    """

    ids: torch.Tensor
    sound: torch.Tensor
    lengths: list[int]
    targets: torch.Tensor | None = None
    first_target: int = 0


class PromptTokens:
    """Tokenises prompts and answers for one tokenizer, each distinct text once; the sides of `<SpeechHere>` apart, as
    the reference does."""

    def __init__(self, tokenizer: Any, vectors: int, max_target_tokens: int) -> None:
        if tokenizer.eos_token_id is None:
            raise SettingsError("llm", "its tokenizer has no end token", "give one whose tokenizer has an eos_token")
        self.tokenizer, self.vectors, self.max_target_tokens = tokenizer, vectors, max_target_tokens
        self.eos = int(tokenizer.eos_token_id)
        self.bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self._prompts: dict[str, tuple[list[int], int]] = {}
        self._answers: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        with panics_told(lambda why: SettingsError("llm", f"its tokenizer fails ({why})", "give another LLM")):
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def prompt(self, text: str) -> tuple[list[int], int]:
        """Ids of the whole prompt, BOS first, zeros in the gap; and where the gap starts."""
        found = self._prompts.get(text)
        if found is None:
            if text.count(SPEECH) != 1:
                raise SettingsError("prompt", f'"{text}" has not one {SPEECH}', f"write {SPEECH} exactly once")
            before, after = text.split(SPEECH)
            head = self.bos + self._ids(before)
            found = (head + [0] * self.vectors + self._ids(after), len(head))
            _remember(self._prompts, text, found)
        return found

    def answer(self, text: str) -> list[int]:
        """Ids of answer and end token, at most `max_target_tokens` (the end token falls away first)."""
        found = self._answers.get(text)
        if found is None:
            found = [*self._ids(text), self.eos][: self.max_target_tokens]
            _remember(self._answers, text, found)
        return found

    def for_loss(self, prompts: Sequence[str], outputs: Sequence[str], device: torch.device) -> Sequences:
        """Prompt and answer behind one another, padded on the right; the answers are the targets."""
        asked, answers = [self.prompt(text) for text in prompts], [self.answer(text) for text in outputs]
        rows = [(ids + answer, gap) for (ids, gap), answer in zip(asked, answers, strict=True)]
        batch = self._padded(rows, device)
        targets = np.full(tuple(batch.ids.shape), -100, np.int64)  # [B, T]
        for row, ((ids, _), answer) in enumerate(zip(asked, answers, strict=True)):
            targets[row, len(ids) : len(ids) + len(answer)] = answer
        batch.targets = _moved(targets, device)
        batch.first_target = min(len(ids) for ids, _ in asked)
        return batch

    def for_generation(self, prompts: Sequence[str], device: torch.device) -> Sequences:
        """Prompts alone."""
        return self._padded([self.prompt(text) for text in prompts], device)

    def _padded(self, rows: Sequence[tuple[list[int], int]], device: torch.device) -> Sequences:
        """Rows of (ids, where the gap starts) as one batch."""
        lengths = [len(tokens) for tokens, _ in rows]
        ids = np.zeros((len(rows), max(lengths)), np.int64)
        sound = np.zeros(ids.shape, bool)
        for row, (tokens, gap) in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            sound[row, gap : gap + self.vectors] = True
        return Sequences(_moved(ids, device), _moved(sound, device), lengths)


def _remember(cache: dict[str, Any], key: str, value: Any) -> None:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def _moved(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)
