"""Keys and values of many answers: a row a slot, where every token of every beam keeps a column of its own.

What a beam sees is said by the attention mask alone, so that beams share their prompt and their past, and nothing is
copied when beams part. `transformers` knows it as a `Cache`: its own modules write to it and read from it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache


class TreeCache(Cache):
    """Keys and values of `slots` rows and `columns` columns, made for each layer when it first comes by."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__(layers=[])
        self.slots, self.columns = slots, columns
        self.kept: list[list[torch.Tensor]] = []  # of each layer keys and values: [slots, columns, heads, size]
        self._rows: torch.Tensor | None = None
        self._at: torch.Tensor | None = None
        self._seen = (0, 0)

    def prefill(self, rows: torch.Tensor) -> None:
        """What comes next are prompts, for these rows [N], from the first column on."""
        self._rows = rows

    def decode(self, rows: int, columns: int, at: torch.Tensor) -> None:
        """What comes next are tokens of the first rows, which see that many columns. at: int64 [rows · B], the place
        of each new token, row · self.columns + column."""
        self._rows, self._at, self._seen = None, at, (rows, columns)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Keep keys and values [N, heads, T, size] of a layer; what its attention is to see, [N, heads, columns, size].

        The name and the arguments are those of transformers.
        """
        if layer_idx == len(self.kept):
            shape = (self.slots, self.columns, key_states.shape[1], key_states.shape[3])
            # note: zeros, because what the mask hides is multiplied by 0, and 0 · NaN is NaN
            self.kept.append([new.new_zeros(shape) for new in (key_states, value_states)])
        if self._rows is not None:
            for kept, new in zip(self.kept[layer_idx], (key_states, value_states), strict=True):
                kept[self._rows, : new.shape[2]] = new.transpose(1, 2)
            return key_states, value_states
        rows, columns = self._seen
        seen = []
        for kept, new in zip(self.kept[layer_idx], (key_states, value_states), strict=True):
            flat = new.transpose(1, 2).reshape(-1, *kept.shape[2:])  # [rows · B, heads, size]
            kept.view(-1, *kept.shape[2:]).index_copy_(0, self._at, flat)
            seen.append(kept[:rows, :columns].transpose(1, 2))
        return tuple(seen)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given, so nothing is counted from here."""
        return 0

    def grow(self, columns: int) -> None:
        """Make room for more columns."""
        for layer in self.kept:
            for which, kept in enumerate(layer):
                layer[which] = kept.new_zeros((self.slots, columns, *kept.shape[2:]))
                layer[which][:, : self.columns] = kept
        self.columns = columns

    def move(self, source: int, target: int, columns: int) -> None:
        """One row's first columns take another's place."""
        for layer in self.kept:
            for kept in layer:
                kept[target, :columns] = kept[source, :columns]
