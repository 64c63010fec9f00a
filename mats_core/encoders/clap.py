"""CLAP encoders: text and audio in one space. `HfClapEncoder` runs any `ClapModel` of transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from mats_core.errors import got_allowed
from mats_core.model.config import checked
from mats_core.model.directory import is_msclap
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import fingerprint_directory
from mats_core.weights import defer_sklearn, no_bars


class ClapEncoder(Protocol):
    """What the rest of the package needs of an encoder."""

    sample_rate: int
    window_seconds: float
    dim: int
    fingerprint: str

    def pad(self, window: Any) -> Any:
        """Samples [T] → [window samples], by the encoder's own rule for short clips; numpy or tensor."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts → float32 [B, dim], unit."""

    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """float32 [B, T] at `sample_rate` → float32 [B, dim], unit."""


class FeatureSettings(BaseModel):
    """What a `preprocessor_config.json` of `ClapFeatureExtractor` says. Its defaults are used where it is silent."""

    model_config = ConfigDict(extra="ignore")

    feature_size: int = Field(64, ge=1, description="mel bands")
    sampling_rate: int = Field(48_000, ge=1)
    hop_length: int = Field(480, ge=1)
    max_length_s: float = Field(10, gt=0)
    fft_window_size: int = Field(1024, ge=2)
    frequency_min: float = 0
    frequency_max: float = 14_000
    truncation: str = "fusion"
    padding: str = "repeatpad"

    @property
    def max_samples(self) -> int:
        return round(self.max_length_s * self.sampling_rate)


class MelSpectrogram(torch.nn.Module):
    """Log-mel spectrogram equal to `ClapFeatureExtractor`'s, in torch, on any device.

    In float64 inside: in float32 the FFT's rounding is heard in quiet bands beside loud ones.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        self.settings = settings
        slaney = "slaney" if settings.truncation != "fusion" else None
        filters = mel_filter_bank(
            num_frequency_bins=settings.fft_window_size // 2 + 1,
            num_mel_filters=settings.feature_size,
            min_frequency=settings.frequency_min,
            max_frequency=settings.frequency_max,
            sampling_rate=settings.sampling_rate,
            norm=slaney,
            mel_scale=slaney or "htk",
        )
        self.register_buffer("filters", torch.from_numpy(np.asarray(filters)).double())
        self.register_buffer("window", torch.hann_window(settings.fft_window_size, dtype=torch.float64))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """float [B, T] → float32 [B, frames, mels] in dB."""
        size, hop = self.settings.fft_window_size, self.settings.hop_length
        half = size // 2
        padded = F.pad(waveforms.double()[:, None], (half, half), mode="reflect")[:, 0]
        frames = padded.unfold(-1, size, hop) * self.window  # [B, frames, size]
        power = torch.fft.rfft(frames).abs().square()
        return (10.0 * torch.log10((power @ self.filters).clamp(min=1e-10))).float()


class HfClapEncoder:
    """Any `ClapModel` directory or hub name; all sizes come from its own configuration files."""

    def __init__(self, directory: str, device: str = "auto", dtype: str = "auto") -> None:
        defer_sklearn()
        from transformers import AutoTokenizer, ClapModel

        from mats_core.model.llm import check_finite, pick_device, pick_dtype

        folder = local_directory(directory, "encoder")
        self.device = pick_device(device)
        self.dtype = torch.float32 if dtype == "auto" else pick_dtype(dtype, device)
        self.features = _feature_settings(folder)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            with no_bars():
                model, report = ClapModel.from_pretrained(
                    str(folder), dtype=self.dtype, local_files_only=True, output_loading_info=True
                )
        except Exception as error:  # transformers raises anything, from OSError to pickle's errors
            raise got_allowed("encoder", directory, f"a ClapModel directory with its tokenizer ({error})") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            wrong = [*report["missing_keys"], *report["mismatched_keys"]]
            raise got_allowed("encoder", directory, f"a complete ClapModel; missing or misshapen: {wrong[:5]}")
        check_finite("encoder", directory, model)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.mel = MelSpectrogram(self.features).to(self.device)
        self.fused = bool(model.config.audio_config.enable_fusion)
        self.sample_rate = self.features.sampling_rate
        self.window_seconds = float(self.features.max_length_s)
        self.dim = int(model.config.projection_dim)
        room = int(model.config.text_config.max_position_embeddings)
        pad = int(model.config.text_config.pad_token_id or 0)
        self.max_text_tokens = room - pad - 1  # RoBERTa counts positions from behind the padding id
        self._end_token = int(self.tokenizer.eos_token_id or self.tokenizer.sep_token_id or pad)
        self.fingerprint = fingerprint_directory(folder)

    def pad(self, window: Any) -> Any:
        """[T] → [window samples]: longer is cut, shorter is padded by the extractor's own rule."""
        if isinstance(window, torch.Tensor):
            return torch.from_numpy(self.pad(window.cpu().numpy())).to(window.device)
        return pad_waveform(window, self.features.max_samples, self.features.padding)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
        """Texts → float32 [B, dim] unit, on the model's device. Texts too long are cut, keeping the end token.

        Sorted by length and batched, so that little is padding; the result keeps the order given.
        """
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_text_tokens)["input_ids"]
        ids = [row or [self._end_token] for row in ids]  # some tokenizers make nothing at all of an empty text
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = torch.empty(len(ids), self.dim, device=self.device)
        filler = self.tokenizer.pad_token_id or 0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            length = max(len(ids[row]) for row in rows)
            tokens = torch.full((len(rows), length), filler)
            mask = torch.zeros(len(rows), length, dtype=torch.long)
            for at, row in enumerate(rows):
                tokens[at, : len(ids[row])] = torch.tensor(ids[row])
                mask[at, : len(ids[row])] = 1
            pooled = self.model.text_model(
                input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)
            ).pooler_output
            out[rows] = F.normalize(self.model.text_projection(pooled).float(), dim=-1)
        return out

    @torch.inference_mode()
    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """float32 [B, T] at `sample_rate`, T at most a window (shorter rows are padded) → float32 [B, dim] unit."""
        waveforms = torch.as_tensor(waveforms)
        if waveforms.shape[-1] != self.features.max_samples:
            waveforms = torch.stack([self.pad(row) for row in waveforms])
        mel = self.mel(waveforms.to(self.device))[:, None].to(self.dtype)
        if self.fused:
            mel = mel.expand(-1, 4, -1, -1)
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=self.device)
        pooled = self.model.audio_model(input_features=mel, is_longer=longer).pooler_output
        return F.normalize(self.model.audio_projection(pooled).float(), dim=-1)


def pad_waveform(window: np.ndarray, samples: int, rule: str) -> np.ndarray:
    """[T] → [samples]. Rules of `ClapFeatureExtractor`: repeat (and cut), repeatpad (whole copies, then zeros), pad."""
    if len(window) >= samples:
        return window[:samples]
    if len(window) and rule == "repeat":
        return np.tile(window, math.ceil(samples / len(window)))[:samples]
    if len(window) and rule == "repeatpad":
        window = np.tile(window, samples // len(window))
    return np.pad(window, (0, samples - len(window)))


def _feature_settings(folder: Path) -> FeatureSettings:
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            values = json.loads(path.read_bytes())
            return checked(FeatureSettings, values.get("feature_extractor", values), name)
    raise got_allowed("encoder", str(folder), "a ClapModel directory; preprocessor_config.json is missing")


def load_encoder(uri: str, device: str = "auto", dtype: str = "auto", **options: Any) -> ClapEncoder:
    """The encoder of a URI: `hf:` or a bare directory or hub name is a `ClapModel`; `msclap:`, or a directory with
    its weights, is Microsoft's. options: `tokenizer` of Microsoft's.
    """
    if is_msclap(uri):
        from mats_core.encoders.msclap import MsClapEncoder

        return MsClapEncoder(uri, device=device, dtype=dtype, **options)
    return HfClapEncoder(uri, device=device, dtype=dtype)
