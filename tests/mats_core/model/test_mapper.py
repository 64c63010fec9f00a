"""The network from an embedding to the LLM's vectors."""

from __future__ import annotations

import pytest
import torch

from mats_core.model.config import MapperConfig
from mats_core.model.mapper import build_mapper


def test_an_mlps_width_is_a_whole_number_whatever_the_quotient_rounds_to() -> None:
    assert int(88 * (120 / 88)) == 119
    layer = build_mapper(MapperConfig(width=88, layers=1, mlp_ratio=120 / 88), 4, 4).transformer.layers[0]
    assert layer.mlp.fc1.out_features == 120
    for width in range(8, 1025, 88):
        assert all(MapperConfig(width=width, mlp_ratio=inner / width).mlp_width == inner for inner in range(1, 400, 7))
    assert MapperConfig(width=24, mlp_ratio=1.37).mlp_width == 32  # 32.88: cut, as in files that were written before


@pytest.mark.parametrize("kind", ["transformer", "mlp", "reference_mlp"])
def test_an_embedding_becomes_vectors_by_itself(kind: str) -> None:
    """[B, D] → [B, vectors, hidden]; a row's vectors do not depend on its batch."""
    config = MapperConfig(kind=kind, vectors=3, clip_tokens=2, width=16, layers=1, heads=4)
    mapper = build_mapper(config, embedding_dim=8, hidden_size=12).eval()
    embedding = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.no_grad():
        together = mapper(embedding)
        alone = torch.cat([mapper(row[None]) for row in embedding])
    assert together.shape == (5, 3, 12)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert len({tuple(row.flatten().tolist()) for row in together}) == 5


def test_the_releases_mlps_have_its_shapes() -> None:
    """Shapes as the release's `MLP` makes them: (D, width · vectors / 2, width · vectors), and (D, width)."""
    wide = build_mapper(MapperConfig(kind="reference_mlp", vectors=40, width=6), 1024, 9)
    assert {name: tuple(each.shape) for name, each in wide.state_dict().items()} == {
        "model.0.weight": (120, 1024), "model.0.bias": (120,), "model.2.weight": (240, 120), "model.2.bias": (240,),
        "projector.weight": (9, 6), "projector.bias": (9,),
    }  # fmt: skip
    simple = build_mapper(MapperConfig(kind="simple_mlp", vectors=1, width=6), 1024, 9)
    assert {name: tuple(each.shape) for name, each in simple.state_dict().items()} == {
        "model.0.weight": (6, 1024), "model.0.bias": (6,), "projector.weight": (9, 6), "projector.bias": (9,),
    }  # fmt: skip
    embedding = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0))
    first, second = wide.model[0], wide.model[2]
    inner = second(torch.tanh(first(embedding))).reshape(2, 40, 6)
    torch.testing.assert_close(wide(embedding), wide.projector(inner))
    torch.testing.assert_close(simple(embedding), simple.projector(simple.model[0](embedding))[:, None])


def test_a_simple_mlp_makes_one_vector() -> None:
    with pytest.raises(ValueError, match="vectors: 1"):
        MapperConfig(kind="simple_mlp", vectors=40)
