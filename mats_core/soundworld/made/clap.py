"""Pretraining of the embedded CLAP, the only part of the embedded world that sees audio.

Its audio tower learns two things at once: which caption of the batch belongs to a clip, against the others and against
its own caption with the order of its sounds turned round (contrastive); and which kinds of sound are there (by linear
layers that are thrown away afterwards, as audio towers of released CLAPs are pretrained on labels).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, linear, normalize
from transformers import ClapConfig, ClapModel, PreTrainedTokenizerFast

from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, caption
from mats_core.soundworld.made.pretrain import Log, Steps, save
from mats_core.soundworld.made.spectrograms import MELS, feature_extractor_config
from mats_core.soundworld.recipe import clip_recipe

DIM = 128
SPEC_SIZE = 128


def clap_config(vocabulary: int) -> ClapConfig:
    """Sizes of the embedded CLAP: 5 s at 16 kHz as 16 × 16 patches of 8 × 8, 128-d joint space."""
    text = {
        "vocab_size": vocabulary, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 98, "projection_dim": DIM, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "type_vocab_size": 1, "pad_token_id": 1,
    }  # fmt: skip
    audio = {
        "spec_size": SPEC_SIZE, "num_mel_bins": MELS, "patch_size": 8, "patch_stride": [8, 8],
        "patch_embeds_hidden_size": 48, "hidden_size": 192, "depths": [1, 1, 3], "num_attention_heads": [4, 4, 8],
        "window_size": 4, "mlp_ratio": 2.0, "projection_dim": DIM, "drop_path_rate": 0.0, "hidden_dropout_prob": 0.0,
        "num_classes": len(KINDS), "enable_fusion": False, "num_hidden_layers": 3,
    }  # fmt: skip
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=DIM)


class _Tower(nn.Module):
    """A CLAP under training, with the label layer that is not kept."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.clap = ClapModel(config)
        self.kinds = nn.Linear(config.audio_config.hidden_size, len(KINDS))
        self.joint_kinds = nn.Linear(DIM, len(KINDS))

    def audio(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, frames, mels] → unit embeddings [B, dim], label logits [B, kinds]."""
        pooled = self.clap.audio_model(input_features=mels).pooler_output
        return normalize(self.clap.audio_projection(pooled), dim=-1), self.kinds(pooled)

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        pooled = self.clap.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return normalize(self.clap.text_projection(pooled), dim=-1)


def pretrain_clap(
    mels: np.ndarray,
    out: Path,
    tokenizer: PreTrainedTokenizerFast,
    steps: int = 2000,
    batch: int = 128,
    learning_rate: float = 1e-2,
    seed: int = 0,
    log: Log = print,
) -> dict[str, float]:
    """Train a ``ClapModel`` on spectrograms and captions of the ``pretrain`` split and save it in float16.

    mels: float16 [N, frames, mels], row i of recipe i of the split.
    out: the encoder directory to write (weights, config, feature extractor settings, tokenizer).
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    count = len(mels)
    recipes = [clip_recipe("pretrain", i) for i in range(count)]
    targets = torch.zeros(count, len(KINDS))
    index = {kind: i for i, kind in enumerate(KINDS)}
    for row, recipe in enumerate(recipes):
        targets[row, [index[k] for k in recipe.labels()]] = 1
    tower = _Tower(clap_config(len(tokenizer)))
    # The per-mel normalisation keeps its running mean and variance but no learned scale: without it nothing
    # before the patches needs a gradient, which saves a sixth of a step.
    tower.clap.audio_model.audio_encoder.batch_norm.requires_grad_(False)
    down = Steps(
        tower, lambda name: name.startswith("clap.") and "embeddings" not in name and "table" not in name, decay=0.05,
        rate=learning_rate, steps=steps, warmup=100, last=0.01,
    )  # fmt: skip
    recent: dict[str, float] = {}
    tower.train()
    order = np.concatenate([rng.permutation(count) for _ in range(math.ceil(steps * batch / count))])
    for step in range(steps):
        rows = np.sort(order[step * batch : (step + 1) * batch])
        contents = [Content.of(recipes[i], rng) for i in rows]
        turned = [c.swapped() for c in contents if len(c.in_order) >= 2]
        texts = [caption(c, rng) for c in contents + turned]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        mel = torch.from_numpy(mels[rows].astype(np.float32))
        mel = mel + torch.from_numpy(rng.normal(0, 4, (batch, 1, 1)).astype(np.float32))
        audio, logits = tower.audio(_masked(mel, rng)[:, None])
        text = tower.text(tokens["input_ids"], tokens["attention_mask"])
        matching, right = contrastive(audio, text, contents, tower.clap.logit_scale_a)
        labels = binary_cross_entropy_with_logits(logits, targets[rows])
        joint = tower.joint_kinds
        for embedding in (audio, text[:batch]):
            labels = labels + 0.5 * binary_cross_entropy_with_logits(
                linear(embedding * 8, joint.weight, joint.bias), targets[rows]
            )
        down.take(matching + 4 * labels)
        with torch.no_grad():
            tower.clap.logit_scale_a.clamp_(max=math.log(50))
        now = {"contrastive": matching.item(), "labels": labels.item(), "right": right}
        recent = {k: 0.98 * recent.get(k, v) + 0.02 * v for k, v in now.items()}
        if (step + 1) % 50 == 0:
            log(f"clap step {step + 1}/{steps} " + " ".join(f"{k} {v:.3f}" for k, v in recent.items()))
    with torch.no_grad():
        tower.clap.logit_scale_t.copy_(tower.clap.logit_scale_a)
    save(tower.clap.eval(), tokenizer, out, feature_extractor_config())
    return recent


def _masked(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """One random band of up to 8 mels replaced by the clip's mean, half of the time."""
    mel = mel.clone()
    for row in range(len(mel)):
        if rng.random() < 0.5:
            width, low = int(rng.integers(1, 9)), int(rng.integers(0, MELS - 8))
            mel[row, :, low : low + width] = mel[row].mean()
    return mel


def contrastive(audio: Tensor, text: Tensor, contents: list[Content], log_scale: Tensor) -> tuple[Tensor, float]:
    """InfoNCE both ways; texts beyond the batch are further wrong captions for the audio.

    Clips of the same sounds in the same layout do not count against each other.
    """
    n = len(audio)
    logits = log_scale.exp() * audio @ text.T
    same: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, c in enumerate(contents):
        key = (c.layout, tuple(c.kinds) if c.in_order else tuple(sorted(c.kinds)))
        same.setdefault(key, []).append(i)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for rows in same.values():
        if len(rows) > 1:
            mask[np.ix_(rows, rows)] = True
    mask.fill_diagonal_(False)
    square = logits[:, :n].masked_fill(mask, -1e4)
    target = torch.arange(n)
    wide = torch.cat([square, logits[:, n:]], dim=1)
    right = (wide.argmax(dim=1) == target).float().mean().item()
    return 0.5 * (cross_entropy(wide, target) + cross_entropy(square.T, target)), right
