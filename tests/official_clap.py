"""Files in Microsoft CLAP 2023's official format with random weights, and what the `msclap` package makes of them."""

from __future__ import annotations

import importlib
import json
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

SAMPLES = 7 * 44_100
NARROW = {"out_emb": 24 * 8, "transformer_embed_dim": 96}
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
    from mats_core.encoders import facts, msclap

    real = facts.package_settings
    with pytest.MonkeyPatch.context() as patch:
        _narrow_classes(patch, msclap.model_classes().__name__)
        patch.setattr(msclap, "package_settings", lambda: {**real(), **NARROW})
        yield


def _narrow_classes(patch: pytest.MonkeyPatch, name: str) -> None:
    """The same for one import of the package's module `models.clap`, which `name` is."""
    from transformers import GPT2Config, GPT2Model

    sizes = GPT2Config(n_embd=NARROW["transformer_embed_dim"], n_layer=4, n_head=4)
    patch.setattr(sys.modules[name].AutoModel, "from_pretrained", staticmethod(lambda name: GPT2Model(sizes)))
    htsat = sys.modules[name.replace(".clap", ".htsat")].HTSAT_Swin_Transformer
    patch.setattr(htsat, "__init__", partialmethod(htsat.__init__, embed_dim=NARROW["out_emb"] // 8))


@contextmanager
def _package(tokens: Path) -> Iterator[Any]:
    """The package's module `CLAPWrapper`, imported as a user does, and gone from `sys.modules` afterwards.

    torchaudio is a stand-in whose `load` gives back the waveform it is given; GPT-2 and its tokenizer come from here.
    """
    from transformers import GPT2Config, GPT2Model, GPT2TokenizerFast, logging

    loud = logging.get_verbosity()
    ours = [name for name in sys.modules if name.partition(".")[0] in ("msclap", "torchaudio")]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():  # the package silences all of Python
        for name in ours:
            patch.delitem(sys.modules, name)
        audio = types.ModuleType("torchaudio")
        audio.load = lambda sound: (torch.from_numpy(sound)[None], 44_100)  # type: ignore[attr-defined]
        audio.transforms = types.ModuleType("torchaudio.transforms")  # type: ignore[attr-defined]
        for module in (audio, audio.transforms):
            patch.setitem(sys.modules, module.__name__, module)
        wrapper = importlib.import_module("msclap.CLAPWrapper")
        tokenizer = SimpleNamespace(from_pretrained=lambda name: GPT2TokenizerFast.from_pretrained(str(tokens)))
        patch.setattr(wrapper, "AutoTokenizer", tokenizer)
        tower = SimpleNamespace(from_pretrained=lambda name: GPT2Model(GPT2Config()))
        patch.setattr(sys.modules["msclap.models.clap"], "AutoModel", tower)
        try:
            yield wrapper
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "msclap"]:
                del sys.modules[name]
            logging.set_verbosity(loud)


def load_package(file: Path, tokens: Path) -> Any:
    """`msclap.CLAP(file)`: the package's own wrapper, with the file loaded by its own code."""
    narrow = torch.load(file, mmap=True)["model"]["caption_encoder.base.wte.weight"].shape[1] < 768
    with _package(tokens) as package, pytest.MonkeyPatch.context() as patch:
        if narrow:
            _narrow_classes(patch, "msclap.models.clap")
            read = package.CLAPWrapper.read_config_as_args

            def read_narrow(*given: Any, **options: Any) -> Any:
                return SimpleNamespace(**{**vars(read(*given, **options)), **NARROW})

            patch.setattr(package.CLAPWrapper, "read_config_as_args", read_narrow)
        return package.CLAPWrapper(file, version="2023", use_cuda=False)


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
    """A weights file and its tokenizer's folder, and what the package makes of them."""

    weights: Path
    tokens: Path

    @property
    def uri(self) -> str:
        return f"msclap:{self.weights}?tokenizer={self.tokens}"

    @cached_property
    def package(self) -> Any:
        """The package's wrapper; its model is `package.clap`."""
        return load_package(self.weights, self.tokens)

    def texts(self, texts: list[str]) -> torch.Tensor:
        """The package's text embeddings, normalised: every text padded to 77 with "!"."""
        return F.normalize(self.package.get_text_embeddings(texts), dim=-1)

    def sounds(self, sounds: list[np.ndarray]) -> torch.Tensor:
        """The package's embeddings of waveforms [T], normalised: repeated until long enough, then cut."""
        return F.normalize(self.package.get_audio_embeddings(sounds), dim=-1)


def write_official(folder: Path) -> OfficialClap:
    """`CLAP_weights_2023.pth` and a tokenizer beside it; as wide as the classes are just now."""
    from mats_core.encoders import msclap

    torch.manual_seed(0)
    made = msclap.build_model(msclap.package_settings())
    with torch.no_grad():  # as after training: random towers would say nearly the same of everything
        for name, weight in made.named_parameters():
            if "projection.linear" in name or ("caption_encoder.base.h" in name and weight.ndim == 2):
                weight.mul_(3)
    torch.save({"model": made.state_dict()}, folder / "CLAP_weights_2023.pth")
    return OfficialClap(folder / "CLAP_weights_2023.pth", write_tokenizer(folder / "tokens"))


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
