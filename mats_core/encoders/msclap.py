"""Microsoft CLAP 2023: the official weights file in the `msclap` package's own model classes.

The package's `__init__` imports torchaudio and its text tower is fetched from the hub; neither happens here: its
`models` folder is imported under a name of our own, and the text tower is built from GPT-2's configuration.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from mats_core.device import exact_float32, pick_device, pick_dtype
from mats_core.encoders.base import embed_by_length, on_device, pad_waveform
from mats_core.encoders.facts import (
    END_OF_TEXT,
    WEIGHTS,
    fingerprint,
    load_gpt2_tokenizer,
    package_folder,
    package_settings,
    split_uri,
    tokenizer_folder,
    weights_file,
)
from mats_core.errors import SettingsError
from mats_core.weights import check_finite, read_pickle, some, tensor_fault

_PACKAGE = "_mats_msclap"  # ours, so that a later `import msclap` still finds the real one

# Constants the modules compute themselves; older files lack some, and hold causal masks that GPT-2 no longer keeps.
_COMPUTED = re.compile(r"relative_position_index$|attn_mask$|num_batches_tracked$")
_IGNORED = re.compile(r"^caption_encoder\.base\.(h\.\d+\.attn\.(bias|masked_bias)|position_ids)$")

# What else a file may turn out to be, by a word its keys hold.
_OTHERS = (
    (r"^gpt\.|^clap_project\.|^clap\.", "Microsoft's clapcap_weights_2023.pth, a captioner"),
    (r"^audio_encoder\.base\.conv_block|^caption_encoder\.base\.(embeddings|encoder)\.", "Microsoft CLAP 2022"),
    (r"^(module\.)?(audio_branch|text_branch)\.", "a LAION CLAP checkpoint"),
    (r"^audio_model\.audio_encoder\.", "a ClapModel of transformers"),
    (r"^audio_mapper\.|^audio_llama_proj\.", "a MATS checkpoint"),
)


class MsClapEncoder:
    """Microsoft CLAP 2023: 44.1 kHz, 7 s windows, 1024 dimensions.

    uri: `msclap:FILE`, `msclap:DIRECTORY` (with the file in it), `msclap:s3://…/FILE` or `msclap:hf:OWNER/NAME`,
    optionally with `?tokenizer=DIRECTORY`. tokenizer: GPT-2's, a directory or hub name, over the URI's; without either
    a folder `gpt2` beside the weights, then the hub.
    """

    def __init__(self, uri: str, device: str = "auto", dtype: str = "auto", tokenizer: str | None = None) -> None:
        place, given = split_uri(uri)
        self.device = pick_device(device)
        self.dtype = torch.float32 if dtype == "auto" else pick_dtype(dtype, device)
        file = weights_file(place)
        self.tokenizer = load_gpt2_tokenizer(tokenizer_folder(tokenizer or given, file.parent))
        settings = package_settings()
        self.sample_rate = int(settings["sampling_rate"])
        self.window_seconds = float(settings["duration"])
        self.dim = int(settings["d_proj"])
        self.max_text_tokens = int(settings["text_len"])
        self.samples = self.sample_rate * int(settings["duration"])
        state = read_weights(file)
        model = build_model(settings)
        _load(model, state, file)
        check_finite("encoder", str(file), model)
        self._end = int(self.tokenizer.convert_tokens_to_ids(END_OF_TEXT))
        if len(self.tokenizer) > model.caption_encoder.base.wte.num_embeddings:
            rows = model.caption_encoder.base.wte.num_embeddings
            raise SettingsError(
                "encoder.tokenizer",
                f"it knows {len(self.tokenizer)} tokens, and the text tower of {uri} has {rows}",
                "give GPT-2's own tokenizer",
            )
        self.model = model.to(self.device).eval().requires_grad_(False)
        if self.dtype is not torch.float32:
            # note: spectrograms stay in float32, since quiet bands would drown in rounding
            htsat = self.model.audio_encoder.base.htsat
            self.model.to(self.dtype)
            htsat.spectrogram_extractor.float()
            htsat.logmel_extractor.float()
            htsat.logmel_extractor.register_forward_hook(lambda module, given, mel: mel.to(self.dtype))
        self.fingerprint = fingerprint(file, self.tokenizer)

    def pad(self, window: Any) -> Any:
        """[T] → [window samples], numpy or tensor: longer is cut, shorter is repeated, as CLAP was trained."""
        return pad_waveform(window, self.samples, "repeat")

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text and its end token, at most `max_text_tokens`: a longer text is cut, never its end token."""
        asked = [f"{text} {END_OF_TEXT}" for text in texts]
        rows = self.tokenizer(asked, add_special_tokens=True, verbose=False)["input_ids"] if asked else []
        longest = self.max_text_tokens
        return [row if len(row) <= longest else [*row[: longest - 1], self._end] for row in rows]

    @torch.inference_mode()
    @exact_float32()
    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
        """Texts → float32 [B, dim] unit, on the model's device, in the order given.

        The vector at the end token is projected.
        """
        tower = self.model.caption_encoder

        def embed(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            # Attention is causal and padding comes last: the end token cannot see it, so no mask is needed.
            hidden = tower.base(input_ids=tokens, use_cache=False)[0]  # [B, T, width]
            # note: the package counts ids that are not 0 instead, and 0 is "!" as well as padding
            pooled = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]  # [B, width]
            return F.normalize(tower.projection(pooled).float(), dim=-1)

        return embed_by_length(self.token_ids(texts), embed, self.dim, 0, batch_size, self.device)

    @torch.inference_mode()
    @exact_float32()
    def embed_audio(self, waveforms: torch.Tensor) -> torch.Tensor:
        """[B, T] at `sample_rate`, int16 or float32 in [-1, 1], T at most a window (shorter rows are repeated) →
        float32 [B, dim] unit."""
        waveforms = torch.as_tensor(waveforms)
        if waveforms.shape[-1] != self.samples:
            waveforms = torch.stack([self.pad(row) for row in waveforms])
        projected, _ = self.model.audio_encoder(on_device(waveforms, self.device))
        return F.normalize(projected.float(), dim=-1)


def model_classes() -> Any:
    """The package's module `models.clap`, whose text tower is built instead of fetched."""
    if f"{_PACKAGE}.models.clap" not in sys.modules:
        shell = types.ModuleType(_PACKAGE)
        shell.__path__ = [str(package_folder())]
        sys.modules[_PACKAGE] = shell
        module = importlib.import_module(f"{_PACKAGE}.models.clap")
        module.AutoModel = Gpt2FromConfiguration  # type: ignore[attr-defined]
    return sys.modules[f"{_PACKAGE}.models.clap"]


class Gpt2FromConfiguration:
    """Stands in for `AutoModel` in the package's module: the weights file holds GPT-2's weights."""

    @staticmethod
    def from_pretrained(name: str) -> torch.nn.Module:
        from transformers import GPT2Config, GPT2Model

        if name != "gpt2":
            why = f'the msclap package asks for the text tower "{name}"'
            raise SettingsError("encoder", why, "install one whose 2023 tower is gpt2")
        return GPT2Model(GPT2Config())


def build_model(settings: dict[str, Any]) -> Any:
    """The package's CLAP with fresh weights; the global random state is left as it was."""
    names = ("audioenc_name", "window_size", "hop_size", "mel_bins", "fmin", "fmax", "out_emb", "text_model")
    sizes = {name: settings[name] for name in (*names, "transformer_embed_dim", "d_proj")}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model_classes().CLAP(
            sample_rate=settings["sampling_rate"], classes_num=settings["num_classes"], **sizes
        ).eval()  # fmt: skip


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of an official file. Read with `weights_only`: nothing in it is executed.

    Raises SettingsError that says what the file is instead, and what was expected.
    """
    expected = f"{WEIGHTS} of Microsoft CLAP"
    found = read_pickle(file, "encoder", str(file), expected)
    state = found.get("model") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not any(str(name).startswith("caption_encoder.base.wte") for name in state):
        raise SettingsError("encoder", f"{file} is {what_it_is(found)}", f"give {expected}")
    wrong = [fault for name, value in state.items() if (fault := tensor_fault(name, value, floating=False))]
    if wrong:
        raise SettingsError("encoder", f"in {file}, {some(wrong)}", f"give {expected}")
    return state


def what_it_is(found: Any) -> str:
    """A file of weights in words, by its keys."""
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    inner = next((found[name] for name in ("model", "state_dict") if isinstance(found.get(name), dict)), found)
    names = [str(name) for name in inner]
    for pattern, what in _OTHERS:
        if any(re.match(pattern, name) for name in names):
            return what
    return f"a dict of {len(names)} entries: {', '.join(names[:3])}, …"


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    """Put the file's tensors in place of the model's; SettingsError says which are missing, unknown or misshapen."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and not _COMPUTED.search(name)]
    unknown = [name for name in state if name not in expected and not _IGNORED.match(name)]
    shapes = {name: (list(state[name].shape), list(expected[name].shape)) for name in expected if name in state}
    wrong = [f"{name} is {have}, expected {want}" for name, (have, want) in shapes.items() if have != want]
    if missing or unknown or wrong:
        faults = {"missing": missing, "unknown": unknown, "misshapen": wrong}
        found = "; ".join(f"{len(names)} {what} ({some(names, 4)})" for what, names in faults.items() if names)
        why = f"{file} is {what_it_is(state)}; of the tensors of {WEIGHTS}, {found}"
        raise SettingsError("encoder", why, f"give {WEIGHTS} of Microsoft CLAP")
    model.load_state_dict({name: state[name] for name in shapes}, strict=False)
