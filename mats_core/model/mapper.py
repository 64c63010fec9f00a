"""From one CLAP embedding to the vectors the LLM reads in place of the sound."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from mats_core.model.config import MapperConfig


class _Attention(nn.Module):
    """Multi-head self-attention without bias in queries, keys and values (reference name: `attn`)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)  # keys first, then values
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, width] → [B, L, width]."""
        batch, length, width = x.shape

        def split(t: torch.Tensor) -> torch.Tensor:  # [B, heads, L, width / heads]
            return t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        keys, values = self.to_keys_values(x).chunk(2, dim=-1)  # each [B, L, width]
        mixed = F.scaled_dot_product_attention(split(self.to_queries(x)), split(keys), split(values))
        return self.project(mixed.transpose(1, 2).reshape(batch, length, width))


class _Layer(nn.Module):
    """One pre-norm transformer layer, [B, L, width] → [B, L, width]."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), relu=nn.ReLU(), fc2=nn.Linear(hidden, width))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TransformerMapper(nn.Module):
    """The authors' mapper: embedding → clip tokens, learned queries appended, transformer, projector.

    Parameter names are those of the reference checkpoint's `audio_mapper.*`; `projector` is its
    `audio_llama_proj`.
    """

    def __init__(self, config: MapperConfig, embedding_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.clip_tokens, self.width = config.clip_tokens, config.width
        self.linear = nn.Linear(embedding_dim, config.clip_tokens * config.width)
        self.prefix_const = nn.Parameter(torch.randn(config.vectors, config.width))
        layers = (_Layer(config.width, config.heads, config.mlp_width) for _ in range(config.layers))
        self.transformer = nn.Sequential(OrderedDict(layers=nn.Sequential(*layers)))
        self.projector = nn.Linear(config.width, hidden_size)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """[B, D] unit → [B, vectors, hidden of the LLM]."""
        clip = self.linear(embedding).view(-1, self.clip_tokens, self.width)  # [B, clip_tokens, width]
        queries = self.prefix_const.expand(len(clip), -1, -1)  # [B, vectors, width]
        out = self.transformer(torch.cat((clip, queries), dim=1))  # [B, clip_tokens + vectors, width]
        return self.projector(out[:, self.clip_tokens :])


class MlpMapper(nn.Module):
    """A cheaper mapper: two linear layers with tanh between them, all vectors at once (ClipCap's MLP)."""

    def __init__(self, config: MapperConfig, embedding_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.vectors, self.hidden_size = config.vectors, hidden_size
        self.fc1 = nn.Linear(embedding_dim, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.vectors * hidden_size)
        with torch.no_grad():
            self.fc2.weight.mul_(0.3)  # closer to the size of an LLM's own token embeddings

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """[B, D] unit → [B, vectors, hidden of the LLM]."""
        scaled = embedding * math.sqrt(embedding.shape[-1])  # coordinates of order 1, where tanh bends
        return self.fc2(torch.tanh(self.fc1(scaled))).view(-1, self.vectors, self.hidden_size)


class ReferenceMlpMapper(nn.Module):
    """The authors' other mappers, before their projector: two linear layers with tanh between them, half as wide inside
    as all vectors together ("mlp"), or a single linear layer that makes one vector ("simple_mlp").

    Parameter names are those of their `audio_mapper.*`.
    """

    def __init__(self, config: MapperConfig, embedding_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.vectors, self.width = config.vectors, config.width
        out = config.vectors * config.width
        sizes = [embedding_dim, out] if config.kind == "simple_mlp" else [embedding_dim, out // 2, out]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.model = nn.Sequential(*layers[:-1])
        self.projector = nn.Linear(config.width, hidden_size)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """[B, D] unit → [B, vectors, hidden of the LLM]."""
        return self.projector(self.model(embedding).view(-1, self.vectors, self.width))


def build_mapper(config: MapperConfig, embedding_dim: int, hidden_size: int) -> nn.Module:
    """The mapper that `config.kind` names, with fresh weights."""
    kinds: dict[str, Callable[[MapperConfig, int, int], nn.Module]] = {
        "transformer": TransformerMapper,
        "mlp": MlpMapper,
        "reference_mlp": ReferenceMlpMapper,
        "simple_mlp": ReferenceMlpMapper,
    }
    return kinds[config.kind](config, embedding_dim, hidden_size)
