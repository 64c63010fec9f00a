"""Loading what a model is made of: LLM and adapter, encoder, memory. Weights only, never code."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from mats_core.errors import SettingsError, got_allowed
from mats_core.model.config import AdapterConfig, Part
from mats_core.storage.fetch import check_safetensors, local_directory
from mats_core.storage.fingerprint import fingerprint_directory
from mats_core.weights import defer_sklearn, no_bars


def pick_device(device: str) -> torch.device:
    """ "auto" is the first GPU where there is one; SettingsError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise got_allowed("device", device, "auto, cpu, cuda, cuda:0, …") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise got_allowed("device", device, "auto or cpu: no CUDA device is available here")
    return place


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """The LLM's number type. "auto" is bfloat16 on CUDA and float32 elsewhere."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if pick_device(device).type == "cuda" else torch.float32
    if dtype not in kinds:
        raise got_allowed("dtype", dtype, "auto, " + ", ".join(kinds))
    return kinds[dtype]


def load_llm(
    uri: str, device: torch.device, dtype: torch.dtype, trust_remote_code: bool = False
) -> tuple[Any, Any, Part]:
    """A frozen causal LLM, its tokenizer, and which it is."""
    defer_sklearn()
    from transformers import AutoModelForCausalLM, GenerationConfig

    from mats_core.model.tokenizer import load_tokenizer

    folder = local_directory(uri, "llm", code=trust_remote_code)
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer = load_tokenizer(folder, trust_remote_code)
        with no_bars():
            llm, report = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, output_loading_info=True, weights_only=True, **options
            )
    except SettingsError:
        raise
    except Exception as error:  # transformers raises anything, from OSError to pickle's errors
        raise got_allowed("llm", uri, _expected_llm(error)) from error
    tied = set(getattr(llm, "_tied_weights_keys", None) or ()) if llm.config.tie_word_embeddings else set()
    missing = sorted(set(report["missing_keys"]) - tied)
    if missing:
        raise got_allowed("llm", uri, f"a complete LLM; weights are missing for {', '.join(missing[:5])}")
    if report["mismatched_keys"]:
        raise got_allowed("llm", uri, f"weights that fit config.json, not {report['mismatched_keys'][:3]}")
    check_finite("llm", uri, llm)
    llm.generation_config = GenerationConfig()  # the model's own habits (sampling, …) never change an answer
    llm.requires_grad_(False)
    return llm.to(device).eval(), tokenizer, Part(uri=_kept(uri), fingerprint=fingerprint_directory(folder))


def _expected_llm(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            "an LLM that transformers knows; this one brings Python files of its own, and they run only with "
            "--trust-remote-code (mats ask, caption, embed-audio, import-reference) or, in Python, "
            "trust_remote_code=True; no other command runs them"
        )
    return f"a causal LLM of transformers with its tokenizer ({_short(error)})"


def load_llm_outline(uri: str, trust_remote_code: bool = False) -> tuple[Any, Any, Part]:
    """As `load_llm`, with the LLM's shapes alone: its weights stay on disk and take no memory."""
    defer_sklearn()
    from transformers import AutoConfig, AutoModelForCausalLM

    from mats_core.model.tokenizer import load_tokenizer

    folder = local_directory(uri, "llm", code=trust_remote_code)
    try:
        tokenizer = load_tokenizer(folder, trust_remote_code)
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)
        with torch.device("meta"):
            llm = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except SettingsError:
        raise
    except Exception as error:  # transformers raises anything
        raise got_allowed("llm", uri, _expected_llm(error)) from error
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        check_safetensors(file, "llm", str(file))
    if not weights and not list(folder.glob("*.bin")):
        raise got_allowed("llm", uri, "an LLM with its weights, model.safetensors or pytorch_model.bin")
    return llm.requires_grad_(False).eval(), tokenizer, Part(uri=_kept(uri), fingerprint=fingerprint_directory(folder))


def add_adapter(llm: Any, config: AdapterConfig) -> Any:
    """Wrap the LLM with fresh LoRA layers (PEFT); the LLM itself stays frozen."""
    from peft import LoraConfig, get_peft_model

    alpha = int(config.alpha) if float(config.alpha).is_integer() else config.alpha
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
        fan_in_fan_out=getattr(llm.config, "model_type", "") == "gpt2",
    )
    try:
        return get_peft_model(llm, settings)
    except ValueError as error:
        raise got_allowed("adapter.target_modules", config.target_modules, _short(error)) from error


def load_encoder_part(uri: str | None, device: torch.device) -> tuple[Any, Part | None]:
    """The encoder and which it is; (None, None) without one."""
    if uri is None:
        return None, None
    from mats_core.encoders.clap import load_encoder

    encoder = load_encoder(uri, device=str(device))
    return encoder, Part(uri=_kept(uri), fingerprint=encoder.fingerprint)


def load_memory_part(uri: str | None, encoder: Part | None) -> tuple[Any, Part | None]:
    """The Santa memory and which it is; refuses one of another encoder."""
    if uri is None:
        return None, None
    from mats_core.memory.santa import SantaMemory

    memory = SantaMemory.load(uri)
    if not isinstance(memory.encoder_fingerprint, str):
        raise got_allowed("memory", uri, "a memory.json whose encoder_fingerprint is text")
    if encoder is not None and memory.encoder_fingerprint not in ("", encoder.fingerprint):
        raise got_allowed(
            "memory",
            uri,
            f"a memory of this model's encoder {encoder.fingerprint[:12]}, not of "
            f'{memory.encoder_fingerprint[:12]}; rebuild it with "mats build-memory"',
        )
    return memory, Part(uri=_kept(uri), fingerprint=memory.fingerprint)


def check_finite(setting: str, uri: str, module: torch.nn.Module) -> None:
    """SettingsError naming the first weight or stored buffer (a batch norm's means) that holds NaN or infinity."""
    for name, weight in module.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise got_allowed(setting, uri, f"finite weights; {name} holds NaN or infinity")


def read_pickle(file: Path, setting: str, shown: str, expected: str) -> Any:
    """What a file of `torch.save` holds, read with `weights_only`: nothing in it is executed.

    Raises SettingsError that says what was expected and why the file could not be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch also warns of what it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated zip, not a pickle, a pickle that wants to run something
        raise got_allowed(setting, shown, f"{expected}; {_why_unread(file, error)}") from None


def tensor_fault(name: Any, value: Any, floating: bool = True) -> str | None:
    """What keeps an entry of a state dict from being a dense, finite tensor under a name; None where nothing does.

    floating=False lets whole numbers pass as well.
    """
    if not isinstance(name, str):
        return f"the key {name!r:.80} is of type {type(name).__name__}, not a name"
    if not isinstance(value, torch.Tensor):
        return f"{name} is of type {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided or value.is_nested or value.is_quantized:
        return f"{name} is a sparse, nested or quantized tensor, not a dense one"
    if value.device.type != "cpu" or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"{name} is a tensor without numbers of its own"
    if value.dtype not in _FLOATS:
        kind = str(value.dtype).removeprefix("torch.")
        return f"{name} is of {kind}, not of floating-point numbers" if floating or value.is_complex() else None
    return None if torch.isfinite(value.float()).all() else f"{name} holds NaN or infinity"


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def some(wrong: list[str], most: int = 20) -> str:
    """A list of what is wrong in one line, cut to `most`, with how many more there are."""
    return "; ".join(wrong if len(wrong) <= most else [*wrong[:most], f"and {len(wrong) - most} more"])


def _why_unread(file: Path, error: Exception) -> str:
    """Why torch did not read a file. Torch has one message for a stray byte and for a pickle that wants to run
    something, so what the file begins with decides first: a zip, or the protocol mark of a pickle."""
    with file.open("rb") as opened:
        head = opened.read(4)
    if not head:
        return "this file is empty"
    if not head.startswith((b"PK", b"\x80")):
        return f"this file is broken or not a PyTorch file (it begins with {head!r})"
    text = str(error)
    if "weights only" in text.lower() or "weights_only" in text:
        asked = re.search(r"GLOBAL ([\w.]+)", text)
        what = f" (it asks for {asked[1]})" if asked else ""
        return f"this file holds more than tensors and plain values{what} and was refused, nothing in it was run"
    return "this file is cut short or broken"


def _kept(uri: str) -> str:
    """The URI as written to `mats.json`: local paths absolute, others as they are."""
    if uri.startswith("msclap:"):
        place, mark, tokenizer = uri[len("msclap:") :].partition("?tokenizer=")
        return f"msclap:{_kept(place)}{mark}{_kept(tokenizer) if tokenizer else ''}"
    if "://" in uri or uri.startswith("hf:") or not os.path.exists(uri):
        return uri
    return os.path.abspath(uri)


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
