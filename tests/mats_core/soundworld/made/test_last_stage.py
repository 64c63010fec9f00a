"""What CLAP is taught on with: facts as tensors, captions turned round, and the last stage alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, ClapModel

from mats_core.model.directory import BUILTIN
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, Sound
from mats_core.soundworld.made.last_stage import (
    Facts,
    Truth,
    before_last_stage,
    facts_loss,
    fit,
    last_stage,
    margins,
    probe_table,
    shares_right,
    teach_facts,
    turned_round,
)
from mats_core.soundworld.made.spectrograms import log_mel
from mats_core.soundworld.recipe import Recipe, clip_recipe
from mats_core.soundworld.synth import render

ENCODER = Path(BUILTIN) / "encoder"
NAMES = list(KINDS)


def mels(count: int) -> np.ndarray:
    return np.stack([log_mel(render(clip_recipe("validation", i))) for i in range(count)]).astype(np.float16)


def test_facts_of_a_batch() -> None:
    over = Content("background", (Sound("dog", pitch="high"), Sound("rain"), Sound("bird", rate="slow")))
    truth = Truth.of([Content("together", (Sound("bell"), Sound("dog"))), over])
    assert [[NAMES[i] for i in row.nonzero().flatten()] for row in truth.there] == [
        ["dog", "bell"],
        ["rain", "bird", "dog"],
    ]
    assert truth.pairs.tolist() == [[1, NAMES.index("dog"), NAMES.index("rain")]]  # what sounds throughout has no order
    assert truth.told.tolist() == [[1, 2, NAMES.index("dog"), 1], [1, 3, NAMES.index("bird"), 0]]


def test_margins_are_positive_where_the_facts_are_right_and_the_loss_falls_with_them() -> None:
    truth = Truth.of([Content("sequence", (Sound("dog", pitch="low"), Sound("rain")))])
    right = torch.zeros(1, 4, len(KINDS))
    right[0, 0] = 9 * (2 * truth.there[0] - 1)
    right[0, 1, NAMES.index("rain")], right[0, 2, NAMES.index("dog")] = 9, -9
    order, told = margins(right, truth)
    assert order.tolist() == [9] and told.tolist() == [9]
    assert facts_loss(right, truth) < 0.01 < 9 < facts_loss(-right, truth)


def test_a_batch_without_order_or_told_facts_teaches_the_kinds_alone() -> None:
    """One sound a clip, and neither its pitch nor its rate."""
    logits = torch.zeros(2, 4, len(KINDS), requires_grad=True)
    loss = facts_loss(logits, Truth.of([Content("single", (Sound("rain"),)), Content("single", (Sound("dog"),))]))
    loss.backward()
    assert loss.item() == pytest.approx(4 * np.log(2))
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[:, 0].abs().sum() > 0


def test_batches_without_facts_leave_weights_and_shares_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All captions are of single sounds of which nothing is told, in the last of two steps."""
    of, made = Content.of, []

    def plain(recipe: Recipe, rng: np.random.Generator, **how: float) -> Content:
        made.append(of(recipe, rng, **how))
        return made[-1] if len(made) <= 8 else Content("single", (Sound(made[-1].kinds[0]),))

    monkeypatch.setattr(Content, "of", plain)
    recent = teach_facts(mels(8), ENCODER, tmp_path, AutoTokenizer.from_pretrained(ENCODER), steps=2, batch=4)
    assert "sound order" in recent and np.isfinite(list(recent.values())).all()
    weights = ClapModel.from_pretrained(tmp_path, dtype=torch.float32).state_dict().values()
    assert all(torch.isfinite(each).all() for each in weights)


def test_one_told_fact_is_turned_round_and_nothing_else() -> None:
    content = Content("sequence", (Sound("dog", "low", "fast"), Sound("rain")))
    made = {turned_round(content, np.random.default_rng(seed)) for seed in range(20)}
    assert made == {
        Content("sequence", (Sound("dog", "high", "fast"), Sound("rain"))),
        Content("sequence", (Sound("dog", "low", "slow"), Sound("rain"))),
    }
    assert turned_round(Content("single", (Sound("rain"),)), np.random.default_rng(0)) is None


def test_the_tower_in_two_parts_is_the_tower() -> None:
    clap = ClapModel.from_pretrained(ENCODER, dtype=torch.float32).eval()
    heard = mels(3)
    with torch.inference_mode():
        pooled = clap.audio_model(input_features=torch.from_numpy(heard.astype(np.float32))[:, None]).pooler_output
        whole = torch.nn.functional.normalize(clap.audio_projection(pooled), dim=-1)
        parts = last_stage(clap, before_last_stage(clap, heard, batch=2).float())
    assert (whole - parts).abs().max() < 2e-3  # the patches between them are kept in float16


def test_what_is_taught_on_is_a_clap_whose_early_stages_are_as_before(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ENCODER)
    recent = teach_facts(mels(8), ENCODER, tmp_path, tokenizer, steps=2, batch=4)
    assert set(recent) == {
        "captions", "cosine", "sound order", "sound pitch and rate", "text order", "text pitch and rate",
    }  # fmt: skip
    assert np.isfinite(list(recent.values())).all()
    before, after = (ClapModel.from_pretrained(each, dtype=torch.float32).state_dict() for each in (ENCODER, tmp_path))
    assert all(torch.isfinite(value).all() for value in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all("layers.2" in name or "audio_encoder.layers" not in name for name in changed)
    assert any("audio_encoder.layers.2" in name for name in changed) and any("text_model" in name for name in changed)
    assert Facts(128)(torch.zeros(2, 128)).shape == (2, 4, len(KINDS))


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
