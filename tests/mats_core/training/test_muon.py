"""Muon: its steps are orthogonal, sized as said, and everything that is no matrix goes through AdamW."""

from __future__ import annotations

import copy

import pytest
import torch

from mats_core.model.config import AdapterConfig, MapperConfig
from mats_core.model.model import MatsModel
from mats_core.training.muon import Muon, orthogonalised
from mats_core.training.schedule import TrainingSettings
from mats_core.training.step import make_optimizer, trained_weights


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6)])
def test_all_directions_of_a_step_are_of_one_size(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(shape[0], shape[0]))
    right, _ = torch.linalg.qr(torch.randn(shape[1], shape[1]))
    sizes = torch.logspace(0, -1, min(shape))  # the smallest direction has a tenth of the largest
    matrix = (left[:, : len(sizes)] * sizes) @ right[: len(sizes)]
    found = torch.linalg.svdvals(orthogonalised(matrix))
    assert found.min() > 0.6
    assert found.max() < 1.25


def test_a_step_points_down_and_is_as_large_as_said() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(16, 64))
    before = weight.detach().clone()
    weight.grad = torch.randn(16, 64)
    Muon([{"params": [weight], "matrices": True}], lr=0.1).step()
    moved = weight.detach() - before
    assert (moved * weight.grad).sum() < 0
    # rms of an orthogonal 16 × 64 is 1/√64; times 0.2 · √64 · lr
    assert moved.pow(2).mean().sqrt().item() == pytest.approx(0.02, rel=0.25)


def test_what_is_no_matrix_is_stepped_by_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(torch.arange(5.0)) for _ in range(2))
    muon = Muon([{"params": [ours]}], lr=0.1, weight_decay=0.02, betas=(0.8, 0.9))
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.02, betas=(0.8, 0.9))
    for step in range(4):
        ours.grad = theirs.grad = torch.sin(torch.arange(5.0) + step)
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_a_group_of_matrices_holds_matrices_only() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([{"params": [torch.nn.Parameter(torch.zeros(3))], "matrices": True}], lr=0.1)


def test_it_goes_on_exactly_from_its_saved_state() -> None:
    torch.manual_seed(0)
    start = [torch.randn(4, 6), torch.randn(6)]

    def run(stop: int | None) -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(w.clone()) for w in start]
        groups = [{"params": weights[:1], "matrices": True}, {"params": weights[1:]}]
        optimizer = Muon(groups, lr=0.05)
        for step in range(6):
            if step == stop:
                state = copy.deepcopy(optimizer.state_dict())
                weights = [torch.nn.Parameter(w.detach().clone()) for w in weights]
                optimizer = Muon([{"params": weights[:1], "matrices": True}, {"params": weights[1:]}], lr=0.05)
                optimizer.load_state_dict(state)
            for w in weights:
                w.grad = torch.cos(w.detach() + step)
            optimizer.step()
        return [w.detach() for w in weights]

    for whole, resumed in zip(run(None), run(3), strict=True):
        assert torch.equal(whole, resumed)


@pytest.mark.parametrize("matrices", [False, True])
def test_a_weight_that_was_stepped_in_the_other_way_begins_anew(matrices: bool) -> None:
    """As after a checkpoint of a version that had other groups."""
    weight = torch.nn.Parameter(torch.ones(4, 6))
    weight.grad = torch.ones(4, 6)
    earlier = Muon([{"params": [weight], "matrices": not matrices}], lr=0.1)
    earlier.step()
    later, fresh = (Muon([{"params": [weight], "matrices": matrices}], lr=0.1) for _ in range(2))
    later.state[weight] = dict(earlier.state[weight])
    start = weight.detach().clone()
    later.step()
    gone_on = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(start)
    fresh.step()
    assert torch.equal(gone_on, weight) and not torch.equal(gone_on, start)


@pytest.mark.parametrize(("kind", "left_out"), [("mlp", {"fc2.weight"}), ("transformer", {"projector.weight"})])
def test_a_training_takes_muon_for_hidden_layers_alone(tiny_model_dir: str, kind: str, left_out: set[str]) -> None:
    """All matrices but the mapper's output layer, and its queries, which no layer multiplies by."""
    sizes = MapperConfig(kind=kind, vectors=2, clip_tokens=1, width=16, layers=1, heads=2)
    llm, adapter = f"{tiny_model_dir}/llm", AdapterConfig(rank=2, alpha=4, dropout=0.0)
    model = MatsModel.new(llm, embedding_dim=16, mapper=sizes, adapter=adapter, device="cpu")
    optimizer = make_optimizer(model, TrainingSettings(optimizer="muon", weight_decay=0.1))
    weights = dict(model.mapper.named_parameters()) | {n: w for n, w in model.llm.named_parameters() if "lora_" in n}
    assert {id(w) for w in weights.values()} == {id(w) for w in trained_weights(optimizer)}
    by_muon = {id(w) for group in optimizer.param_groups if group["matrices"] for w in group["params"]}
    matrices = {name for name, weight in weights.items() if weight.ndim == 2}
    assert {name for name, weight in weights.items() if id(weight) in by_muon} == matrices - left_out - {"prefix_const"}
    decayed = {id(w) for group in optimizer.param_groups if group["weight_decay"] for w in group["params"]}
    assert decayed == {id(weights[name]) for name in matrices}
