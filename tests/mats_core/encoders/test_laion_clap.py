"""LAION's CLAP: a `ClapModel` with their extractor's settings, against transformers' own processor and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mats_core.encoders.clap import HfClapEncoder
from mats_core.encoders.load import load_encoder

RATE, SECONDS = 48_000, 10
LINES = ["the sound of a dog barking while rain falls", "a siren passes, then two bells ring", "birds sing in the wind"]


def write_laion(folder: Path, fused: bool) -> Path:
    """Random towers behind LAION's own front: 48 kHz, 10 s, 64 mels to 14 kHz, a RoBERTa tokenizer of byte pairs."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    made = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(LINES * 20, vocab_size=400, min_frequency=2, show_progress=False, special_tokens=special)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    told = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    told |= {f"{name}_token": token for name, token in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=RATE,
        hop_length=480,
        max_length_s=SECONDS,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14_000,
        padding="repeatpad",
        truncation="fusion" if fused else "rand_trunc",
    ).save_pretrained(folder)
    text = {"vocab_size": made.get_vocab_size(), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"intermediate_size": 64, "max_position_embeddings": 514, "pad_token_id": 1, "initializer_range": 0.2}
    audio = {"patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}
    torch.manual_seed(5)
    config = ClapConfig(
        text_config={**text, "projection_dim": 48}, audio_config={**audio, "projection_dim": 48}, projection_dim=48
    )
    ClapModel(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_laion(tmp_path_factory.mktemp("laion"), request.param)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> tuple[Any, Any]:
    """transformers' processor and model."""
    from transformers import ClapFeatureExtractor, ClapModel, ClapProcessor, RobertaTokenizerFast

    tokenizer = RobertaTokenizerFast.from_pretrained(str(folder))
    processor = ClapProcessor(ClapFeatureExtractor.from_pretrained(str(folder)), tokenizer)
    return processor, ClapModel.from_pretrained(str(folder)).eval()


@pytest.fixture(scope="module")
def ours(folder: Path) -> HfClapEncoder:
    found = load_encoder(str(folder), device="cpu")
    assert isinstance(found, HfClapEncoder)
    return found


def unit(found: Any) -> torch.Tensor:
    return F.normalize(getattr(found, "pooler_output", found), dim=-1)


def test_sizes_come_from_their_settings(ours: HfClapEncoder) -> None:
    assert (ours.sample_rate, ours.window_seconds, ours.dim) == (48_000, 10.0, 48)
    assert (ours.pad(np.zeros(7, np.float32)).shape, ours.max_text_tokens) == ((480_000,), 512)


def test_sounds_equal_the_processors_and_models(ours: HfClapEncoder, theirs: tuple[Any, Any]) -> None:
    draw, time = np.random.default_rng(0), np.arange(RATE * SECONDS) / RATE
    tone = np.sin(2 * np.pi * 440 * time)
    sounds = [draw.normal(0, 0.1, len(time)), tone, np.zeros(len(time)), np.clip(5 * tone, -1, 1)]
    sounds += [draw.normal(0, 0.1, length) for length in (RATE * 3, len(time) - 1, 700)]
    sounds = [sound.astype(np.float32) for sound in sounds]
    # note: where no sound is longer than the window, the fused extractor marks one of them at random as if it were
    longer = draw.normal(0, 0.1, RATE * 12).astype(np.float32)
    processor, model = theirs
    inputs = processor.feature_extractor([*sounds, longer], sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = unit(model.get_audio_features(**inputs))[: len(sounds)]
    found = ours.embed_audio(torch.from_numpy(np.stack([ours.pad(sound) for sound in sounds])))
    assert ((found * expected).sum(-1) >= 0.99999).all()
    assert (found[0] @ found[1]) < 0.9999  # different sounds differ, or the comparison would say nothing


def test_texts_equal_the_processors_and_models(ours: HfClapEncoder, theirs: tuple[Any, Any]) -> None:
    texts = ["", "a dog barks", "🐕 naïve café", "大雨落在铁皮屋顶上", "rain! two bells", " ".join(LINES * 4)]
    processor, model = theirs
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = unit(model.get_text_features(**inputs))
    found = ours.embed_text(texts)
    assert ((found * expected).sum(-1) >= 0.99999).all()
    assert (found @ found.T).min() < 0.999  # different texts differ


def test_by_a_hub_name(folder: Path, ours: HfClapEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append(name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for uri in ("laion/clap-htsat-unfused", "hf:laion/clap-htsat-unfused"):
        assert load_encoder(uri, device="cpu").fingerprint == ours.fingerprint
    assert asked == ["laion/clap-htsat-unfused"] * 2
