"""A linear layer reads what embeddings hold, and no more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content
from mats_core.soundworld.made.last_stage import Truth
from mats_core.soundworld.made.probe import fit, probe_table, shares_right
from mats_core.soundworld.recipe import clip_recipe


def made_up(split: str, count: int) -> tuple[Tensor, Truth]:
    """Unit embeddings [count, 48] that hold which kinds there are and which comes first, and their facts."""
    rng = np.random.default_rng(0)
    told = [Content.of(clip_recipe(split, i), rng, attributes=1.0) for i in range(count)]
    truth = Truth.of(told)
    first = torch.zeros(count, len(KINDS))
    for row, content in enumerate(told):
        if content.in_order:
            first[row, list(KINDS).index(content.in_order[0].kind)] = 1
    return torch.nn.functional.normalize(torch.cat([truth.there, first], dim=1), dim=1), truth


def test_what_is_in_an_embedding_is_read_and_what_is_not_is_a_coin() -> None:
    layer = fit(*made_up("upper_bound", 2000), steps=150)
    embeddings, truth = made_up("validation", 500)
    right = shares_right(layer, embeddings, truth)
    assert right["presence"] > 0.97 and right["order"] > 0.8
    assert 0.4 < right["pitch"] < 0.6 and 0.4 < right["rate"] < 0.6
    assert f"| sound | {right['presence']:.3f} |" in probe_table({"sound": right})
