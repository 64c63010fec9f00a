"""The LLM: its weights, its tokenizer exactly as the model was trained with it, and the adapter on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mats_core.device import exact_float32
from mats_core.errors import SettingsError, first_line
from mats_core.model.config import AdapterConfig, Part
from mats_core.model.directory import recorded_uri
from mats_core.pretrained import check_outline, check_pretrained, panics_told
from mats_core.storage.descriptions import read_object
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import fingerprint_directory
from mats_core.weights import check_finite, compare_keys, defer_sklearn, no_bars, outline, read_pickle, some


def load_llm(
    uri: str, device: torch.device, dtype: torch.dtype, trust_remote_code: bool = False
) -> tuple[Any, Any, Part]:
    """A frozen causal LLM, its tokenizer, and which it is; SettingsError for weights that are not whole or finite."""
    defer_sklearn()
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = local_directory(uri, "llm", code=trust_remote_code)
    _check(folder, uri, trust_remote_code)
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    with _told_as_settings(uri), no_bars():
        tokenizer = load_tokenizer(folder, trust_remote_code)
        llm, report = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, output_loading_info=True, weights_only=True, **options
        )
    tied = set(getattr(llm, "_tied_weights_keys", None) or ()) if llm.config.tie_word_embeddings else set()
    missing = sorted(set(report["missing_keys"]) - tied)
    if missing:
        raise SettingsError("llm", f"{uri} has no weights for {', '.join(missing[:5])}", "give a complete LLM")
    if report["mismatched_keys"]:
        why = f"weights of {uri} do not fit its config.json: {report['mismatched_keys'][:3]}"
        raise SettingsError("llm", why, "give the weights and the config.json of one LLM")
    check_finite("llm", uri, llm)
    llm.generation_config = GenerationConfig()  # the LLM's own defaults (sampling, …) never change an answer
    llm.requires_grad_(False)
    return llm.to(device).eval(), tokenizer, Part(uri=recorded_uri(uri), fingerprint=fingerprint_directory(folder))


def _check(folder: Path, uri: str, trusted: bool) -> dict[str, list[int]] | None:
    """The shapes of an LLM's weights, as `check_pretrained` reads them; refuses what they could not fill."""
    config, shapes = check_pretrained(folder, "llm", uri, trusted)
    if config and shapes and not trusted:
        check_outline(_outline(folder, uri, False), shapes, "llm", uri, packed="quantization_config" in config)
    return shapes


def _outline(folder: Path, uri: str, trusted: bool) -> Any:
    """The LLM without numbers: its modules on the meta device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with _told_as_settings(uri):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trusted, local_files_only=True)
        return outline(lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=trusted))


@contextmanager
def _told_as_settings(uri: str) -> Iterator[None]:
    """What transformers raises, from OSError to pickle's errors, as a SettingsError."""
    try:
        with panics_told(RuntimeError):
            yield
    except SettingsError:
        raise
    except Exception as error:
        why = f"{uri} cannot be loaded ({type(error).__name__}: {first_line(error)})"
        remedy = "give a causal LLM of transformers with its tokenizer"
        if "trust_remote_code" in str(error):
            why = f"{uri} brings Python files of its own, and they run only when they are trusted"
            remedy = (
                "give --trust-remote-code (mats ask, caption, embed-audio, import-reference) or, in Python, "
                "trust_remote_code=True; no other command runs them; or choose an LLM that transformers knows"
            )
        raise SettingsError("llm", why, remedy) from error


def load_llm_outline(uri: str, trust_remote_code: bool = False) -> tuple[Any, Any, Part]:
    """As `load_llm`, with the LLM's shapes alone: its weights stay on disk and take no memory."""
    defer_sklearn()
    folder = local_directory(uri, "llm", code=trust_remote_code)
    shapes = _check(folder, uri, trust_remote_code)
    with _told_as_settings(uri):
        tokenizer = load_tokenizer(folder, trust_remote_code)
    llm = _outline(folder, uri, trust_remote_code)
    if not shapes and not list(folder.glob("*.bin")):
        why = f"the weights of {uri}, model.safetensors or pytorch_model.bin, are missing"
        raise SettingsError("llm", why, "give a complete LLM")
    part = Part(uri=recorded_uri(uri), fingerprint=fingerprint_directory(folder))
    return llm.requires_grad_(False).eval(), tokenizer, part


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
        why = f"LoRA cannot be put on {config.target_modules} of this LLM ({first_line(error)})"
        remedy = "name linear layers of the LLM, or null for PEFT's default"
        raise SettingsError("adapter.target_modules", why, remedy) from error


def load_adapter(llm: Any, state: dict[str, torch.Tensor]) -> None:
    """Copy LoRA weights (PEFT's names) into a wrapped LLM; SettingsError lists what does not fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    expected = get_peft_model_state_dict(llm)
    wrong = compare_keys(expected, state)
    if wrong:
        why = f"the adapter does not fit the LLM: {some(wrong)}"
        raise SettingsError("model", why, "give the LLM it was trained on")
    set_peft_model_state_dict(llm, {key: tensor.to(expected[key].dtype) for key, tensor in state.items()})


@torch.no_grad()
@exact_float32()
def merge_lora(llm: Any, folder: Path) -> None:
    """Add an adapter into the weights of the LLM that it is on: in float32, and rounded once to the LLM's own type.

    folder: of the LLM. An LLM that was loaded in half precision has been rounded already, so what the adapter is added
    to is read from there. Leaves an LLM as it is whose weights are packed in few bits. For inference only.
    """
    from peft.tuners.lora import LoraLayer

    base = llm.get_base_model()
    layers = {name: each for name, each in base.named_modules() if isinstance(each, LoraLayer)}
    if not all(each.get_base_layer().weight.is_floating_point() for each in layers.values()):
        return
    rounded = [name for name, each in layers.items() if each.get_base_layer().weight.dtype is not torch.float32]
    stored = _stored_weights(folder, rounded, f"{base.base_model_prefix}.")
    for name, layer in layers.items():
        weight = layer.get_base_layer().weight
        whole = stored.get(name)
        if whole is None or whole.shape != weight.shape:  # note: transformers may store a layer under another name
            whole = weight
        whole = whole.to(weight.device, torch.float32)
        for adapter in layer.active_adapters:
            whole = whole + layer.get_delta_weight(adapter).float()
            layer.merged_adapters.append(adapter)
        weight.copy_(whole)


def _stored_weights(folder: Path, layers: Sequence[str], prefix: str) -> dict[str, torch.Tensor]:
    """Layer → its weight as the LLM's files hold it, of those that are found there; read when it is used."""
    if not layers:
        return {}
    from safetensors import safe_open

    wanted = {key: name for name in layers for key in (f"{name}.weight", f"{name.removeprefix(prefix)}.weight")}
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found |= {wanted[key]: tensors.get_tensor(key) for key in tensors.keys() if key in wanted}  # noqa: SIM118
    for file in sorted(folder.glob("*.bin")) if not found else ():
        state = read_pickle(file, "llm", str(file), "the LLM's own weights", mapped=True)
        found |= {wanted[key]: state[key] for key in state if key in wanted}
    return found


def pack_weights(llm: Any, kind: str, device: torch.device) -> None:
    """Keep the weights of an LLM's linear layers in 8 or 4 bits on `device`; embeddings, head and adapter stay.

    kind: "int8", a scale a row, or "int4", a scale for every 128 numbers, on a GPU alone. Only weights are rounded:
    methods that round activations too do it by the largest of a batch, and an answer would depend on its neighbours.
    """
    try:
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError:
        remedy = 'run `pip install "mats-audio[lowbit]"`, or choose bfloat16'
        raise SettingsError("llm_dtype", f"{kind} needs the torchao package, which is not installed", remedy) from None
    if kind == "int4" and device.type != "cuda":
        raise SettingsError("llm_dtype", "int4 needs a GPU", "choose int8 or float32")
    head, packed = llm.get_output_embeddings(), 0

    def is_layer(module: torch.nn.Module, name: str) -> bool:
        nonlocal packed
        chosen = isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name
        packed += chosen
        return chosen

    config: Any
    if kind == "int4":
        config = Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", set_inductor_config=False)
    else:
        config = Int8WeightOnlyConfig(set_inductor_config=False)
    quantize_(llm, config, filter_fn=is_layer, device=device)
    if not packed:
        raise SettingsError("llm_dtype", f"this LLM has no linear layers that {kind} could pack", "choose bfloat16")


def check_rank(state: dict[str, torch.Tensor], rank: int) -> None:
    """SettingsError where an adapter's weights are of another rank than mats.json says: before any are made."""
    for key, tensor in state.items():
        if ".lora_A." in key and tensor.shape[:1] != (rank,):
            why = f"the adapter's rank is {rank} in mats.json, and {key} is {list(tensor.shape)}"
            raise SettingsError("model", why, "give the adapter and the mats.json of one model")


class SentencePieceTokenizer:
    """LLaMA's tokenizer from `tokenizer.model` alone, by the SentencePiece library itself.

    `transformers` converts such a file into a fast tokenizer and drops the file's own text normalisation on the way: a
    line break, which every prompt holds, may then become another token. Text never turns into special tokens here.
    """

    def __init__(self, file: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            why = f"{file} is read by the sentencepiece package, which is not installed"
            raise SettingsError("llm", why, 'run "pip install sentencepiece", or give a tokenizer.json') from None
        try:
            self._processor = SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError) as error:
            why = f"{file} is no whole SentencePiece model ({error})"
            raise SettingsError("llm", why, "copy it again") from None
        ids = (self._processor.bos_id(), self._processor.eos_id(), self._processor.pad_id())
        self.bos_token_id, self.eos_token_id, self.pad_token_id = (each if each >= 0 else None for each in ids)

    def __len__(self) -> int:
        return int(self._processor.vocab_size())

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """{"input_ids": ids}; with `add_special_tokens` BOS comes first."""
        head = [self.bos_token_id] if add_special_tokens and self.bos_token_id is not None else []
        return {"input_ids": head + list(self._processor.encode(text))}

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of ids; control tokens (BOS, end, unknown) fall away with `skip_special_tokens`."""
        kept = [int(token) for token in ids if 0 <= int(token) < len(self)]
        if skip_special_tokens:
            kept = [t for t in kept if not (self._processor.is_control(t) or self._processor.is_unknown(t))]
        return str(self._processor.decode(kept))


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer of an LLM directory: by `transformers`, or by SentencePiece where it is all there is."""
    if _sentencepiece_alone(folder):
        return SentencePieceTokenizer(folder / "tokenizer.model")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)


def _sentencepiece_alone(folder: Path) -> bool:
    if (folder / "tokenizer.json").exists() or not (folder / "tokenizer.model").is_file():
        return False
    settings = folder / "tokenizer_config.json"
    values = read_object(settings, "llm") if settings.is_file() else {}
    return values.get("tokenizer_class", "LlamaTokenizer") in ("LlamaTokenizer", "LlamaTokenizerFast")
