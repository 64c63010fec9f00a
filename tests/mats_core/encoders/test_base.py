"""What all encoders share: padding, and texts in batches of like length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core.encoders.base import embed_by_length, pad_waveform


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("repeat", [1, 2, 3, 1, 2, 3, 1, 2]),
        ("repeatpad", [1, 2, 3, 1, 2, 3, 0, 0]),
        ("pad", [1, 2, 3, 0, 0, 0, 0, 0]),
    ],
)
def test_padding_rules(rule: str, expected: list[int]) -> None:
    assert pad_waveform(np.array([1, 2, 3]), 8, rule).tolist() == expected


def test_padding_edges() -> None:
    assert pad_waveform(np.zeros(0, np.float32), 4, "repeatpad").tolist() == [0, 0, 0, 0]
    assert pad_waveform(np.arange(6), 4, "repeat").tolist() == [0, 1, 2, 3]
    padded = pad_waveform(np.array([1.0, 2.0], np.float32), 4, "repeat")
    assert padded.dtype == np.float32


def test_a_tensor_is_padded_as_its_numbers() -> None:
    padded = pad_waveform(torch.tensor([1.0, 2.0, 3.0]), 8, "repeatpad")
    assert isinstance(padded, torch.Tensor)
    assert padded.tolist() == [1, 2, 3, 1, 2, 3, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_texts_come_back_in_their_order_with_little_padding(batch_size: int) -> None:
    """The "embedding" of a text is the sum of its ids, without what pads it, and how many they are."""
    ids = [[5], [1, 2, 3, 4], [7, 7], [9, 9, 9, 9, 9], [2, 2]]
    padded = 0

    def embed(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        nonlocal padded
        padded += int((tokens == 100).sum())
        return torch.stack([torch.where(tokens == 100, 0, tokens).sum(dim=1), lengths], dim=1)

    found = embed_by_length(ids, embed, 2, 100, batch_size, torch.device("cpu"))
    assert found.tolist() == [[sum(row), len(row)] for row in ids]
    assert padded == {1: 0, 2: 3, 5: 11}[batch_size]
