"""`HfClapEncoder`: any `ClapModel` of transformers, LAION's and the embedded one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.device import exact_float32, pick_device, pick_dtype
from mats_core.encoders.base import embed_by_length, on_device, pad_waveform
from mats_core.encoders.facts import FeatureSettings, read_features
from mats_core.errors import SettingsError, first_line
from mats_core.pretrained import check_outline, check_pretrained, panics_told
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import fingerprint_directory
from mats_core.storage.uris import Uri, uri_text
from mats_core.weights import check_finite, defer_sklearn, no_bars, outline, some


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
            settings.fft_window_size // 2 + 1, settings.feature_size, settings.frequency_min, settings.frequency_max,
            settings.sampling_rate, norm=slaney, mel_scale=slaney or "htk",
        )  # fmt: skip
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
    """Any `ClapModel` of transformers: LAION's and the embedded one. All sizes come from its own configuration files.

    directory: a local one, or a hub name. dtype: "auto" is float32. Attributes: `sample_rate` in Hz, `window_seconds`,
    `dim`, `fingerprint`, `device`. Raises SettingsError for a directory that is missing, incomplete or of another kind.
    """

    def __init__(self, directory: Uri, device: str = "auto", dtype: str = "auto") -> None:
        defer_sklearn()
        from transformers import AutoTokenizer, ClapConfig, ClapModel

        directory = uri_text(directory)
        folder = local_directory(directory, "encoder")
        self.device = pick_device(device)
        self.dtype = torch.float32 if dtype == "auto" else pick_dtype(dtype, device)
        self.features = read_features(folder)
        config, shapes = check_pretrained(folder, "encoder", directory)
        try:
            with panics_told(RuntimeError):
                self.tokenizer = AutoTokenizer.from_pretrained(
                    str(folder), local_files_only=True, trust_remote_code=False
                )
            if config and shapes:
                settings = ClapConfig.from_pretrained(str(folder), local_files_only=True)
                check_outline(
                    outline(lambda: ClapModel(settings)),
                    shapes,
                    "encoder",
                    directory,
                    packed="quantization_config" in config,
                )
            with no_bars():
                model, report = ClapModel.from_pretrained(
                    str(folder), dtype=self.dtype, local_files_only=True, output_loading_info=True
                )
        except SettingsError:
            raise
        except Exception as error:  # transformers raises anything, from OSError to pickle's errors
            why = f"{directory} cannot be loaded ({type(error).__name__}: {first_line(error)})"
            raise SettingsError("encoder", why, "give a ClapModel directory with its tokenizer") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            wrong = [*report["missing_keys"], *report["mismatched_keys"]]
            why = f"weights of {directory} are missing or misshapen: {some([str(each) for each in wrong], 5)}"
            raise SettingsError("encoder", why, "give a complete ClapModel")
        check_finite("encoder", directory, model)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.mel = MelSpectrogram(self.features).to(self.device)
        self.fused = bool(model.config.audio_config.enable_fusion)
        self.sample_rate = self.features.sampling_rate
        self.window_seconds = float(self.features.max_length_s)
        self.dim = int(model.config.projection_dim)
        positions = int(model.config.text_config.max_position_embeddings)
        pad = int(model.config.text_config.pad_token_id or 0)
        self.max_text_tokens = positions - pad - 1  # RoBERTa counts positions from behind the padding id
        self._end_token = int(self.tokenizer.eos_token_id or self.tokenizer.sep_token_id or pad)
        self.fingerprint = fingerprint_directory(folder)

    def pad(self, window: Any) -> Any:
        """[T] → [window samples], numpy or tensor: longer is cut, shorter is padded by the extractor's own rule."""
        return pad_waveform(window, self.features.max_samples, self.features.padding)

    @torch.inference_mode()
    @exact_float32()
    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
        """Texts → float32 [B, dim] unit, on the model's device. Texts too long are cut, keeping the end token."""
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        with panics_told(lambda why: SettingsError("encoder", f"its tokenizer fails ({why})", "give another encoder")):
            ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_text_tokens)["input_ids"]
        ids = [row or [self._end_token] for row in ids]  # some tokenizers make nothing at all of an empty text

        def embed(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            mask = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]).long()  # [B, T]
            pooled = self.model.text_model(input_ids=tokens, attention_mask=mask).pooler_output  # [B, width]
            return F.normalize(self.model.text_projection(pooled).float(), dim=-1)

        return embed_by_length(ids, embed, self.dim, self.tokenizer.pad_token_id or 0, batch_size, self.device)

    @torch.inference_mode()
    @exact_float32()
    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[B, T] at `sample_rate`, int16 or float32 in [-1, 1], T at most a window (shorter rows are padded) → float32
        [B, dim] unit."""
        waveforms = torch.as_tensor(waveforms)
        if waveforms.shape[-1] != self.features.max_samples:
            waveforms = torch.stack([self.pad(row) for row in waveforms])
        mel = self.mel(on_device(waveforms, self.device))[:, None].to(self.dtype)  # [B, 1, frames, mels]
        if self.fused:
            mel = mel.expand(-1, 4, -1, -1)
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=self.device)
        pooled = self.model.audio_model(input_features=mel, is_longer=longer).pooler_output
        return F.normalize(self.model.audio_projection(pooled).float(), dim=-1)
