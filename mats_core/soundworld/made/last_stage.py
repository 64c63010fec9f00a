"""CLAP taught on: its last audio stage and its text tower learn order, pitch and rate, which contrast alone leaves out.

Telling a caption from those of other clips takes the kinds of sound and little else: after `pretrain_clap` an embedding
of sound says which of two sounds came first no better than a coin. Here both towers' embeddings must say it through one
linear layer (thrown away afterwards): which kinds there are, which of two comes first, which pitch is high and which
rate fast. Among the wrong captions of a clip is its own with the order, or with a pitch or a rate, turned round.

The stages before the last stay as they are. What they make of the clips is computed once, and a step costs a tenth.

`probe_encoder` asks such a linear layer what an embedding holds. Where a model answers worse than this layer, the
embedding has the fact, and mapper and LLM do not read it; where the layer fails too, CLAP has lost it. What a layer
fitted on text reads from sound, text-only training can hope for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, normalize, softplus
from transformers import ClapModel, PreTrainedTokenizerFast

from mats_core.encoders.clap import HfClapEncoder
from mats_core.soundworld.kinds import KINDS
from mats_core.soundworld.language import Content, Sound, caption
from mats_core.soundworld.made.ablation import audio_embeddings
from mats_core.soundworld.made.clap import contrastive
from mats_core.soundworld.made.measure import split_recipes
from mats_core.soundworld.made.pretrain import Steps, save
from mats_core.soundworld.made.spectrograms import feature_extractor_config
from mats_core.soundworld.recipe import Recipe, clip_recipe

Log = Callable[[str], None]
Numbers = dict[str, dict[str, float]]
_INDEX = {kind: row for row, kind in enumerate(KINDS)}
_OPPOSITE = {"low": "high", "high": "low", "slow": "fast", "fast": "slow"}
_THERE, _WHEN, _PITCH, _RATE = range(4)
_SPREAD = 8.0
"""Unit embeddings are small numbers to a linear layer: they are multiplied by this."""

FITTED, PROBED = 6000, 1000
"""Clips of the splits `upper_bound` and `validation`."""


class Facts(nn.Module):
    """What an embedding says of each kind of sound: whether it is there, when (less is earlier), how high, how fast."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, 4 * len(KINDS))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings [B, dim] → logits [B, 4, kinds]."""
        return self.layer(_SPREAD * embeddings).view(len(embeddings), 4, len(KINDS))


@dataclasses.dataclass
class Truth:
    """The facts of a batch: kinds there are [B, kinds]; pairs (row, earlier, later) [P, 3]; told pitches and rates
    (row, `_PITCH` or `_RATE`, kind, whether high or fast) [T, 4]."""

    there: Tensor
    pairs: Tensor
    told: Tensor

    @classmethod
    def of(cls, contents: Sequence[Content]) -> Truth:
        """The facts of contents, a row each."""
        there = torch.zeros(len(contents), len(KINDS))
        pairs, told = [], []
        for row, content in enumerate(contents):
            there[row, [_INDEX[kind] for kind in content.kinds]] = 1
            order = [_INDEX[sound.kind] for sound in content.in_order]
            pairs += [(row, first, later) for at, first in enumerate(order) for later in order[at + 1 :]]
            for sound in content.sounds:
                if sound.pitch:
                    told.append((row, _PITCH, _INDEX[sound.kind], int(sound.pitch == "high")))
                if sound.rate:
                    told.append((row, _RATE, _INDEX[sound.kind], int(sound.rate == "fast")))
        columns = ((pairs, 3), (told, 4))
        return cls(there, *(torch.tensor(rows, dtype=torch.long).view(-1, wide) for rows, wide in columns))


def margins(logits: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """How clearly facts are right: of pairs [P], and of pitches and rates [T]. Below 0 they are wrong."""
    row, earlier, later = truth.pairs.T  # [P] each
    order = logits[row, _WHEN, later] - logits[row, _WHEN, earlier]
    row, what, kind, much = truth.told.T  # [T] each
    return order, logits[row, what, kind] * (2 * much - 1)


def facts_loss(logits: Tensor, truth: Truth) -> Tensor:
    """How badly logits [B, 4, kinds] say the facts, of which there may be none but the kinds. Kinds weigh most: nothing
    else can be said without them."""
    there = binary_cross_entropy_with_logits(logits[:, _THERE], truth.there)
    order, told = margins(logits, truth)
    of_order, of_told = (softplus(-each).sum() / max(1, len(each)) for each in (order, told))
    return 4 * there + of_order + 0.7 * of_told


def turned_round(content: Content, rng: np.random.Generator) -> Content | None:
    """The content with one told pitch or rate its opposite; None where none is told."""
    told = [(at, name) for at, s in enumerate(content.sounds) for name in ("pitch", "rate") if getattr(s, name)]
    if not told:
        return None
    at, name = told[int(rng.integers(len(told)))]
    sound: Sound = content.sounds[at]
    changed = dataclasses.replace(sound, **{name: _OPPOSITE[getattr(sound, name)]})
    return Content(content.layout, (*content.sounds[:at], changed, *content.sounds[at + 1 :]))


def before_last_stage(clap: ClapModel, mels: np.ndarray, batch: int = 128) -> Tensor:
    """What the audio tower's last stage is given for spectrograms [N, frames, mels]: float16 [N, patches, width]."""
    parts: list[Tensor] = []

    class Enough(Exception):
        """Ends the forward pass where the last stage would begin."""

    def keep(stage: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        parts.append((arguments[0] if arguments else named["hidden_states"]).half())
        raise Enough

    hook = clap.audio_model.audio_encoder.layers[-1].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.inference_mode(), hook:
        for at in range(0, len(mels), batch):
            mel = torch.from_numpy(mels[at : at + batch].astype(np.float32))[:, None]  # [B, 1, frames, mels]
            try:
                clap.audio_model(input_features=mel)
            except Enough:
                continue
    return torch.cat(parts)


def last_stage(clap: ClapModel, patches: Tensor) -> Tensor:
    """The rest of the audio tower: patches [B, patches, width] → unit embeddings [B, dim]."""
    tower = clap.audio_model.audio_encoder
    side = round(patches.shape[1] ** 0.5)
    out = tower.layers[-1](patches, (side, side))
    pooled = tower.norm(out[0] if isinstance(out, tuple) else out).mean(dim=1)
    return normalize(clap.audio_projection(pooled), dim=-1)


def teach_facts(
    mels: np.ndarray, start: Path, out: Path, tokenizer: PreTrainedTokenizerFast, steps: int = 1500, batch: int = 128,
    learning_rate: float = 5e-3, seed: int = 0, log: Log = print,
) -> dict[str, float]:  # fmt: skip
    """Train the CLAP of ``start`` on, and save it in float16 as ``out``.

    mels: float16 [N, frames, mels], row i of recipe i of the ``pretrain`` split.
    Returns running shares right of order, pitch and rate in embeddings of sound and of text.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clap = ClapModel.from_pretrained(start, dtype=torch.float32)
    patches = before_last_stage(clap.eval(), mels)  # [N, patches, width]
    log(f"clap: {len(patches)} clips heard up to the last stage")
    recipes: list[Recipe] = [clip_recipe("pretrain", index) for index in range(len(patches))]
    tower = nn.ModuleDict({"clap": clap, "facts": Facts(clap.config.projection_dim)}).train()
    clap.requires_grad_(False)
    encoder = clap.audio_model.audio_encoder
    for part in (encoder.layers[-1], encoder.norm, clap.audio_projection, clap.text_model, clap.text_projection):
        part.requires_grad_(True)
    clap.logit_scale_a.requires_grad_(True)
    down = Steps(
        tower, lambda name: name.startswith("clap.") and "embeddings" not in name and "table" not in name, decay=0.05,
        rate=learning_rate, steps=steps, warmup=60, last=0.01,
    )  # fmt: skip
    order = np.concatenate([rng.permutation(len(patches)) for _ in range(-(-steps * batch // len(patches)))])
    recent: dict[str, float] = {}
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        told = [Content.of(recipes[row], rng) for row in rows]
        wrong = [content.swapped() for content in told if len(content.in_order) >= 2]
        wrong += [turned for content in told if (turned := turned_round(content, rng)) is not None]
        ids = tokenizer([caption(content, rng) for content in told + wrong], padding=True, return_tensors="pt")
        written = clap.text_model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).pooler_output
        text = normalize(clap.text_projection(written), dim=-1)  # [B + wrong, dim]
        audio = last_stage(clap, dropout(patches[rows].float(), 0.1))  # [B, dim]
        loss, right = contrastive(audio, text, told, clap.logit_scale_a)
        heard = Truth.of([Content.of(recipes[row], rng, attributes=1.0) for row in rows])
        read = Truth.of(told + wrong)
        of_audio, of_text = tower["facts"](audio), tower["facts"](text)
        apart = 1 - (audio * text[:batch]).sum(dim=1).mean()  # a sound and its own caption are to lie near each other
        down.take(loss + apart + 2 * facts_loss(of_audio, heard) + 0.5 * facts_loss(of_text, read))
        with torch.no_grad():
            clap.logit_scale_a.clamp_(max=float(np.log(50)))
            now = {"captions": right, "cosine": 1 - apart.item()}
            for name, logits, truth in (("sound", of_audio, heard), ("text", of_text, read)):
                for fact, clear in zip(("order", "pitch and rate"), margins(logits, truth), strict=True):
                    if len(clear):  # a small batch may tell none
                        now[f"{name} {fact}"] = (clear > 0).float().mean().item()
        recent |= {name: 0.95 * recent.get(name, value) + 0.05 * value for name, value in now.items()}
        if (step + 1) % 50 == 0:
            log(f"clap facts, step {step + 1}/{steps} " + " ".join(f"{k} {v:.3f}" for k, v in recent.items()))
    with torch.no_grad():
        clap.logit_scale_t.copy_(clap.logit_scale_a)
    save(clap.eval(), tokenizer, out, feature_extractor_config())
    return recent


def probe_encoder(
    work: Path, encoder: HfClapEncoder, fitted: int = FITTED, probed: int = PROBED, log: Log = print
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


def fit(embeddings: Tensor, truth: Truth, steps: int = 300, seed: int = 0) -> Facts:
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
