"""What all encoders share: padding, and texts in batches of like length."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mats_core.encoders.base import as_float, embed_by_length, embed_captions, on_device, pad_waveform, stack_windows


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


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rule=st.sampled_from(["repeat", "repeatpad", "pad"]),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_whole_numbers_become_the_same_bits_on_the_device(rule: str, lengths: list[int], seed: int) -> None:
    """Padded and stacked as int16 and then made float32, or made float32 by NumPy first: no bit differs."""
    rng = np.random.default_rng(seed)
    windows = [rng.integers(-32768, 32768, length).astype(np.int16) for length in lengths]
    for window in windows:
        window.flags.writeable = False  # as samples in Arrow's memory are, which torch would warn of
    pad = partial(pad_waveform, samples=23, rule=rule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacked = stack_windows(windows, pad)
    assert stacked.dtype == torch.int16
    expected = np.stack([pad(window.astype(np.float32) / 32768.0) for window in windows])
    assert on_device(stacked, torch.device("cpu")).numpy().tobytes() == expected.tobytes()
    # one window in float32 among them, and all are
    mixed = stack_windows([windows[0].astype(np.float32) / 32768.0, *windows[1:]], pad)
    assert mixed.dtype == torch.float32
    assert mixed.numpy().tobytes() == expected.tobytes()


def test_samples_as_float32() -> None:
    for kind in (np.array, torch.tensor):
        whole = as_float(kind([-32768, 0, 16384], dtype=np.int16 if kind is np.array else torch.int16))
        assert whole.tolist() == [-1.0, 0.0, 0.5]
        assert str(as_float(kind([0.25, -1.0]))[:1].dtype).endswith("float32")


def test_several_captions_are_their_mean_and_one_is_itself() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}
    asked: list[list[str]] = []

    def embed(texts: Sequence[str]) -> torch.Tensor:
        asked.append(list(texts))
        return torch.tensor([vectors[text] for text in texts])

    found = embed_captions(embed, [["c"], ["a", "b"], ["b", "b", "b"], ["c", "a"]])
    assert asked == [["c", "a", "b", "b", "b", "b", "c", "a"]]
    assert found.dtype == torch.float32 and found[0].tolist() == torch.tensor(vectors["c"]).tolist()
    assert found[1:].flatten().tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 1, 2 * 0.2**0.5, 0.2**0.5])


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
