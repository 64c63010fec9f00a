"""Files in Microsoft CLAP 2023's official format with random weights, and what the `msclap` package makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

SAMPLES = 7 * 44_100
LINES = (
    "a dog barks while rain falls on a tin roof and an engine idles",
    "the siren of an ambulance passes by with children shouting in the distance",
    "birds are singing, then a bell rings three times! what a sound",
)


@contextmanager
def narrow_towers() -> Iterator[None]:
    """The package's own classes a quarter as wide and GPT-2 of four layers: a comparison takes seconds, not minutes.

    All else is official: rate, window, mel bands, positions, heads of the audio tower, 1024 dimensions.
    """
    from transformers import GPT2Config, GPT2Model

    from mats_core import msclap, msclap_files

    real = msclap_files.package_settings
    with pytest.MonkeyPatch.context() as patch:
        module = msclap.model_classes()
        sizes = GPT2Config(n_embd=96, n_layer=4, n_head=4)
        narrow = {"out_emb": 24 * 8, "transformer_embed_dim": 96}
        patch.setattr(module.AutoModel, "from_pretrained", staticmethod(lambda name: GPT2Model(sizes)))
        htsat = sys.modules[module.__name__.replace(".clap", ".htsat")]
        start = htsat.HTSAT_Swin_Transformer.__init__
        patch.setattr(htsat.HTSAT_Swin_Transformer, "__init__", partialmethod(start, embed_dim=24))
        patch.setattr(msclap, "package_settings", lambda: {**real(), **narrow})
        yield


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE with GPT-2's habits: "!" is 0, the end token comes last, no special handling of spaces."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(LINES * 20, vocab_size=400, min_frequency=2, show_progress=False)
    made.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True)
    made.save_model(str(folder))
    vocabulary = made.get_vocab()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    assert vocabulary["!"] == 0
    return folder


@dataclass
class OfficialClap:
    """A weights file, the tokenizer's folder, and the package's model as it would load them."""

    weights: Path
    tokens: Path
    package: Any = field(repr=False)

    @property
    def uri(self) -> str:
        return f"msclap:{self.weights}?tokenizer={self.tokens}"

    @property
    def width(self) -> int:
        """Of the text tower."""
        return int(self.package.caption_encoder.base.config.n_embd)

    def texts(self, tokenizer: Any, texts: list[str]) -> torch.Tensor:
        """What `CLAPWrapper.get_text_embeddings` computes, normalised: every text padded to 77 with "!"."""
        rows = [
            tokenizer(text + " <|endoftext|>", add_special_tokens=True, max_length=77, padding="max_length")
            for text in texts
        ]
        inputs = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            return F.normalize(self.package.caption_encoder(inputs), dim=-1)

    def sounds(self, sounds: list[np.ndarray]) -> torch.Tensor:
        """What `CLAPWrapper.get_audio_embeddings` computes, normalised: repeated until long enough, then cut."""
        whole = torch.from_numpy(np.stack([np.tile(s, -(-SAMPLES // len(s)))[:SAMPLES] for s in sounds]))
        with torch.no_grad():
            return F.normalize(self.package.audio_encoder(whole)[0], dim=-1)


def write_official(folder: Path) -> OfficialClap:
    """`CLAP_weights_2023.pth` and a tokenizer beside it; as wide as the classes are just now."""
    from mats_core import msclap

    torch.manual_seed(0)
    package = msclap.build_model(msclap.package_settings())
    with torch.no_grad():  # as after training: random towers would say nearly the same of everything
        for name, weight in package.named_parameters():
            if "projection.linear" in name or ("caption_encoder.base.h" in name and weight.ndim == 2):
                weight.mul_(3)
    torch.save({"model": package.state_dict()}, folder / "CLAP_weights_2023.pth")
    return OfficialClap(folder / "CLAP_weights_2023.pth", write_tokenizer(folder / "tokens"), package)


def many_texts(encoder: Any) -> list[str]:
    """200 texts of 1 token (and the end token) to 77 in all, without "!": empty, emoji, Chinese, accents among them."""
    words = " ".join(LINES).replace("!", "").split()
    draw = np.random.default_rng(0)
    texts = ["", " ", "☔", "雨の音がする", "大雨落在铁皮屋顶上", "dog 🐕 barks", "naïve café", "a\nb", "RAIN", "a"]
    while len(texts) < 199:
        texts.append(" ".join(draw.choice(words, draw.integers(1, 40))))
    exact = "a"
    while len(encoder.token_ids([exact])[0]) < 77:
        exact += " a"
    return [*texts, exact]


def many_sounds() -> list[np.ndarray]:
    """50 waveforms float32 [T]: silent, clipped, noise; exact, a sample short, much shorter."""
    draw = np.random.default_rng(1)
    time = np.arange(SAMPLES) / 44_100
    sounds = [np.zeros(SAMPLES), np.clip(5 * np.sin(2765 * time), -1, 1), draw.normal(0, 0.1, SAMPLES)]
    while len(sounds) < 50:
        length = (SAMPLES, SAMPLES - 1, int(draw.integers(1000, SAMPLES)))[len(sounds) % 3]
        tone = 0.4 * np.sin(2 * np.pi * draw.uniform(60, 7000) * time[:length])
        sounds.append(tone * draw.uniform(0.1, 1) + draw.normal(0, 0.01, length))
    return [sound.astype(np.float32) for sound in sounds]
