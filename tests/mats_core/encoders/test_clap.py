"""HfClapEncoder against transformers' own feature extractor and model."""

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
from mats_core.errors import SettingsError
from tests.tiny import SAMPLE_RATE, WINDOW_SECONDS, make_tiny_encoder

SAMPLES = SAMPLE_RATE * WINDOW_SECONDS


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def encoder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[HfClapEncoder, Path]:
    folder = make_tiny_encoder(tmp_path_factory.mktemp("clap"), fused=request.param)
    return HfClapEncoder(str(folder), device="cpu"), folder


def _waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    seconds = np.arange(SAMPLES) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 440 * seconds)
    return [
        rng.normal(0, 0.1, SAMPLES),
        tone,  # loud, beside near-silent bands: where float32 would be heard
        0.001 * tone + (seconds > 2) * 0.5 * np.sin(2 * np.pi * 3000 * seconds),
        np.zeros(SAMPLES),
        np.clip(5 * tone, -1, 1),
        rng.normal(0, 0.1, SAMPLES // 3),
        rng.normal(0, 0.1, SAMPLES - 1),
        rng.normal(0, 0.1, 700),
    ]


def test_mel_equals_the_feature_extractors(encoder: tuple[HfClapEncoder, Path]) -> None:
    from transformers import ClapFeatureExtractor

    ours, folder = encoder
    extractor = ClapFeatureExtractor.from_pretrained(str(folder))
    for waveform in _waveforms():
        theirs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
        mel = ours.mel(torch.from_numpy(ours.pad(waveform))[None]).numpy()
        assert theirs.shape[1] == (4 if ours.fused else 1)
        for channel in theirs[0]:
            np.testing.assert_allclose(mel[0], channel, atol=1e-4)


def test_embeddings_equal_the_models(encoder: tuple[HfClapEncoder, Path]) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    ours, folder = encoder
    extractor = ClapFeatureExtractor.from_pretrained(str(folder))
    model = ClapModel.from_pretrained(str(folder)).eval()
    for waveform in _waveforms():
        inputs = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.no_grad():
            # the extractor marks a random short clip as "longer"; ours never does
            pooled = model.audio_model(
                input_features=inputs["input_features"].float(), is_longer=torch.zeros(1, 1, dtype=torch.bool)
            ).pooler_output
            expected = F.normalize(model.audio_projection(pooled), dim=-1)
        found = ours.embed_audio(torch.from_numpy(np.asarray(waveform, np.float32))[None])
        assert (found * expected).sum() > 0.99999


def test_sizes_come_from_the_directory(encoder: tuple[HfClapEncoder, Path]) -> None:
    ours, _ = encoder
    assert (ours.sample_rate, ours.window_seconds, ours.dim) == (SAMPLE_RATE, 5.0, 32)


def test_embeddings_are_unit_float32_and_do_not_depend_on_the_batch(encoder: tuple[HfClapEncoder, Path]) -> None:
    ours, _ = encoder
    batch = torch.from_numpy(np.stack([ours.pad(w) for w in _waveforms()])).float()
    together = ours.embed_audio(batch)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(batch)))
    alone = torch.cat([ours.embed_audio(row[None]) for row in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    texts = ["rain", "a dog barks while rain falls", "", "two bells and a siren " * 40, "wind ☂ 雨"]
    both = ours.embed_text(texts)
    torch.testing.assert_close(both, torch.cat([ours.embed_text([t]) for t in texts]), atol=1e-5, rtol=0)
    assert ours.embed_text([]).shape == (0, 32)


def test_whole_numbers_are_heard_as_the_same_sound(encoder: tuple[HfClapEncoder, Path]) -> None:
    ours, _ = encoder
    whole = np.random.default_rng(5).integers(-32768, 32768, (2, ours.features.max_samples // 3)).astype(np.int16)
    sound = whole.astype(np.float32) / 32768.0
    assert torch.equal(ours.embed_audio(torch.from_numpy(whole)), ours.embed_audio(torch.from_numpy(sound)))


def test_fingerprint_follows_weights_not_places(encoder: tuple[HfClapEncoder, Path], tmp_path: Path) -> None:
    import shutil

    ours, folder = encoder
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load_encoder(f"hf:{copy}", device="cpu").fingerprint == ours.fingerprint
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    settings["hop_length"] = 400
    (copy / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load_encoder(str(copy), device="cpu").fingerprint != ours.fingerprint


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="encoder"):
        HfClapEncoder(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="preprocessor_config"):
        HfClapEncoder(str(tmp_path / "empty"))
    folder = make_tiny_encoder(tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SettingsError, match="encoder"):
        HfClapEncoder(str(folder))
