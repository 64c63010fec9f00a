"""What an embedding still holds: one linear layer is asked what an LLM is asked.

Where a model answers worse than this layer, the embedding has the fact, and mapper and LLM do not read it; where the
layer fails too, CLAP has lost it. What a layer fitted on text reads from sound, text-only training can hope for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mats_core.encoders.clap import HfClapEncoder
from mats_core.soundworld.language import Content, caption
from mats_core.soundworld.made.ablation import audio_embeddings
from mats_core.soundworld.made.last_stage import Facts, Truth, facts_loss, margins
from mats_core.soundworld.made.measure import split_recipes

Numbers = dict[str, dict[str, float]]
FITTED, PROBED = 6000, 1000
"""Clips of the splits `upper_bound` and `validation`."""
STEPS = 300


def probe_encoder(
    work: Path, encoder: HfClapEncoder, fitted: int = FITTED, probed: int = PROBED, log: Callable[[str], None] = print
) -> Numbers:
    """Shares right by a linear layer: read from sound, from captions, and from sound by the layer fitted on captions.

    work: folder for spectrograms and embeddings, which are kept there.
    """
    rng = np.random.default_rng(0)
    truths, embedded = {}, {}
    for split, count in (("upper_bound", fitted), ("validation", probed)):
        contents = [Content.of(recipe, rng, attributes=1.0) for recipe in split_recipes(split, count)]
        truths[split] = Truth.of(contents)
        embedded[split, "sound"] = audio_embeddings(work, encoder, split, count, log)  # [N, D]
        embedded[split, "text"] = encoder.embed_text([caption(content, rng) for content in contents]).float().cpu()
    numbers = {}
    layers = {kind: fit(embedded["upper_bound", kind], truths["upper_bound"]) for kind in ("sound", "text")}
    for name, layer, kind in (
        ("sound", "sound", "sound"),
        ("text", "text", "text"),
        ("text to sound", "text", "sound"),
    ):
        numbers[name] = shares_right(layers[layer], embedded["validation", kind], truths["validation"])
    return numbers


def fit(embeddings: Tensor, truth: Truth, steps: int = STEPS, seed: int = 0) -> Facts:
    """The linear layer that says the facts of embeddings [N, D] best."""
    torch.manual_seed(seed)
    layer = Facts(embeddings.shape[1])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-2, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=steps)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            facts_loss(layer(embeddings), truth).backward()
            optimizer.step()
            schedule.step()
    return layer.eval()


def shares_right(layer: Facts, embeddings: Tensor, truth: Truth) -> dict[str, float]:
    """Of presence (a kind that is there and one that is not, of each clip), order of two, pitch and rate."""
    with torch.inference_mode():
        logits = layer(embeddings)  # [N, 4, kinds]
    said = (logits[:, 0] > 0).float()
    yes = ((said * truth.there).sum(dim=1) / truth.there.sum(dim=1)).mean()
    no = (((1 - said) * (1 - truth.there)).sum(dim=1) / (1 - truth.there).sum(dim=1)).mean()
    order, told = margins(logits, truth)
    pitch = truth.told[:, 1] == 2
    right = {"presence": (yes + no) / 2, "order": order > 0, "pitch": told[pitch] > 0, "rate": told[~pitch] > 0}
    return {name: share.float().mean().item() for name, share in right.items()}


def probe_table(numbers: Numbers) -> str:
    """What `probe_encoder` found, for people, in Markdown."""
    names = list(next(iter(numbers.values())))
    rows = [f"| {kind} | {' | '.join(f'{shares[name]:.3f}' for name in names)} |" for kind, shares in numbers.items()]
    return "\n".join([f"| a linear layer reads from | {' | '.join(names)} |", f"|---|{'---|' * len(names)}", *rows])
