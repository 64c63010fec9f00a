"""From prompts as embeddings to ids: a row's ids are its own, and end with the end token."""

from __future__ import annotations

import pytest
import torch

import mats_core
from mats_core.generation.generate import generate
from mats_core.generation.settings import DecodingSettings
from mats_core.model.model import MatsModel


@pytest.fixture(scope="module")
def model(tiny_model_dir: str) -> MatsModel:
    return mats_core.load_model(tiny_model_dir, device="cpu")


def ids_of(model: MatsModel, embeddings: torch.Tensor, mask: torch.Tensor, **values: int) -> list[list[int]]:
    settings = DecodingSettings(max_new_tokens=9, **values)
    return generate(model.causal_lm, embeddings, mask, settings, bos=model.tokenizer.bos_token_id, end=model.tokens.eos)


@pytest.mark.parametrize("beams", [1, 4])
@torch.inference_mode()
def test_padding_on_the_left_changes_nothing(model: MatsModel, beams: int) -> None:
    width = model.config.hidden_size
    prompts = [torch.randn(length, width, generator=torch.Generator().manual_seed(length)) for length in (3, 11, 6)]
    embeddings = torch.zeros(3, 11, width)
    mask = torch.zeros(3, 11, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        embeddings[row, 11 - len(prompt) :] = prompt
        mask[row, 11 - len(prompt) :] = True
    together = ids_of(model, embeddings, mask, beams=beams)
    alone = [
        ids_of(model, prompt[None], torch.ones(1, len(prompt), dtype=torch.bool), beams=beams)[0] for prompt in prompts
    ]
    assert together == alone
    assert len({tuple(row) for row in together}) > 1


@torch.inference_mode()
def test_an_end_token_is_the_last_and_lengths_are_kept(model: MatsModel) -> None:
    embeddings = torch.randn(8, 5, model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(8, 5, dtype=torch.bool)
    end = model.tokens.eos
    for row in ids_of(model, embeddings, mask):
        assert end not in row[:-1]
        assert row[-1] == end or len(row) == 9
    for row in ids_of(model, embeddings, mask, min_length=10):  # with the BOS
        assert len(row) == 9
