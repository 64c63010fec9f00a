"""Sounds of the embedded world beside their sentences: right for a CLAP, guessed for two halves that never met."""

from __future__ import annotations

import numpy as np
import torch

from mats_core.encoders.load import load_encoder
from mats_core.model.directory import BUILTIN
from mats_core.soundworld.hearing import GUESSED, KINDS, LEAST, heard_right


def test_the_shipped_clap_knows_its_sounds_and_halves_of_two_guess() -> None:
    encoder = load_encoder(str(BUILTIN / "encoder"), device="cpu")
    assert heard_right(encoder) > 0.95
    weight = encoder.model.text_projection.linear2.weight  # type: ignore[attr-defined]
    own, found = weight.clone(), []
    for seed in range(4):  # a text tower whose space is another one: its axes are in another order
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))
        weight.data = own[order]
        found.append(heard_right(encoder))
    assert abs(np.mean(found) - GUESSED) < 0.15
    assert np.mean(found) < LEAST


def test_one_vector_for_all_is_a_guess() -> None:
    class Constant:
        sample_rate = 16_000

        def pad(self, window: np.ndarray) -> np.ndarray:
            return window

        def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
            assert waveforms.shape == (len(KINDS), 5 * 16_000)
            return torch.ones(len(waveforms), 4)

        def embed_text(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts), 4)

    assert heard_right(Constant()) == GUESSED
