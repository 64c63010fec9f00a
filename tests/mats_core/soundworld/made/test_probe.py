"""A linear layer reads what embeddings hold, and no more."""

from __future__ import annotations

import numpy as np
import torch

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content
from mats_core.soundworld.made.last_stage import Truth
from mats_core.soundworld.made.probe import fit, probe_table, shares_right
from mats_core.soundworld.recipe import clip_recipe


def test_what_is_in_an_embedding_is_read_and_what_is_not_is_a_coin() -> None:
    rng = np.random.default_rng(0)
    told = [Content.of(clip_recipe("validation", i), rng, attributes=1.0) for i in range(600)]
    truth = Truth.of(told)
    first = torch.zeros(len(told), len(KINDS))  # 1 at the kind that comes first
    for row, content in enumerate(told):
        if content.in_order:
            first[row, list(KINDS).index(content.in_order[0].kind)] = 1
    unit = torch.nn.functional.normalize(torch.cat([truth.there, first], dim=1), dim=1)
    right = shares_right(fit(unit, truth), unit, truth)
    assert right["presence"] > 0.97 and right["order"] > 0.8
    assert 0.4 < right["pitch"] < 0.75 and 0.4 < right["rate"] < 0.75  # only the usual answer of each kind
    blind = shares_right(fit(torch.zeros_like(unit), truth, steps=20), torch.zeros_like(unit), truth)
    assert abs(blind["presence"] - 0.5) < 0.05
    assert f"| sound | {right['presence']:.3f} |" in probe_table({"sound": right})
