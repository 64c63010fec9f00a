"""The authors' released checkpoint → a model directory. Read with `weights_only`: nothing in it is executed."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict

from mats_core import parts
from mats_core.checkpoint import compare_keys, load_weights, resolve_output
from mats_core.config import (
    AdapterConfig,
    DecodingSettings,
    MapperConfig,
    ModelConfig,
    SantaSettings,
    checked,
)
from mats_core.errors import SettingsError
from mats_core.fetch import local_file
from mats_core.mapper import build_mapper
from mats_core.model import MatsModel

LORA_PREFIX = "llama_model.base_model.model."
_NEVER_APPLIED = ("ln_audio.weight", "ln_audio.bias")
_HEADS = 8  # the tensors do not tell; the reference has eight

# Settings a user may give, the name each has in the checkpoint's own config, and the reference's default.
SETTINGS: dict[str, tuple[str, Any]] = {
    "lora_alpha": ("lora_alpha", 32),
    "lora_dropout": ("lora_dropout", 0.1),
    "heads": ("num_heads", _HEADS),
    "noise_variance": ("noise_variance", 0.015),
    "max_target_tokens": ("max_txt_len", 150),
    "neighbors": ("k_nums", 32),
    "scale": ("temperature", 10.0),
    "mix": ("lambda", 0.3),
    "beams": ("num_beams", 4),
    "max_new_tokens": ("max_new_tokens", 200),
    "min_length": ("min_length", 1),
    "no_repeat_ngram": ("no_repeat_ngram_size", 2),
    "repetition_penalty": ("repetition_penalty", 2.0),
    "length_penalty": ("length_penalty", 1.0),
}


@dataclass
class ImportReport:
    """What an import did. chosen: setting → (value, where it came from: "given", "checkpoint", "default")."""

    directory: Path
    sizes: dict[str, int]
    chosen: dict[str, tuple[Any, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For a person to read."""
        found = [f"{name} {value} (from the tensors)" for name, value in self.sizes.items()]
        found += [f"{name} {value} (from: {source})" for name, (value, source) in self.chosen.items()]
        return found + [f"skipped {name}" for name in self.skipped]


def read_checkpoint(path: str) -> dict[str, Any]:
    """The checkpoint's dict; SettingsError for what is not one, whole and harmless."""
    file = local_file(path, "checkpoint")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = (str(error).splitlines() or [""])[0]
        raise SettingsError(
            "checkpoint", path, f"a checkpoint of tensors and plain values; it was refused, nothing in it ran ({first})"
        ) from None
    except Exception as error:  # a truncated zip, a directory, not a pickle at all
        raise SettingsError("checkpoint", path, f"a whole .pth file ({type(error).__name__}: {error})") from None
    state = found.get("model") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SettingsError("checkpoint", path, 'a dict whose "model" holds tensors by name')
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise SettingsError("checkpoint", path, f"finite weights; {name} holds NaN or infinity")
    return found


def split_state(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[str]]:
    """(mapper by our names, LoRA by PEFT's names, what is skipped and why). Unknown keys stay with the mapper."""
    mapper: dict[str, torch.Tensor] = {}
    lora: dict[str, torch.Tensor] = {}
    skipped = []
    for name, tensor in state.items():
        if name in _NEVER_APPLIED:
            skipped.append(f"{name}: the reference never applies it")
        elif name.endswith("rotary_emb.inv_freq"):
            skipped.append(f"{name}: a buffer the LLM computes itself")
        elif name.startswith("audio_mapper."):
            mapper[name.removeprefix("audio_mapper.")] = tensor
        elif name.startswith("audio_llama_proj."):
            mapper["projector." + name.removeprefix("audio_llama_proj.")] = tensor
        elif name.startswith(LORA_PREFIX) and ".lora_" in name:
            lora["base_model.model." + name.removeprefix(LORA_PREFIX).replace(".default.", ".")] = tensor
        else:
            mapper[name] = tensor
    return mapper, lora, skipped


def their_name(name: str) -> str:
    """The checkpoint's own name of one of our tensors: the inverse of `split_state`."""
    if name.startswith("base_model.model."):
        return LORA_PREFIX + re.sub(r"(\.lora_[AB])\.", r"\1.default.", name.removeprefix("base_model.model."))
    if name.startswith("projector."):
        return "audio_llama_proj." + name.removeprefix("projector.")
    return "audio_mapper." + name


def sizes_of(mapper: dict[str, torch.Tensor], lora: dict[str, torch.Tensor], path: str) -> dict[str, int]:
    """All sizes the tensors tell. SettingsError names tensors that are needed for that and missing."""
    needed = ("prefix_const", "linear.weight", "projector.weight")
    absent = [their_name(name) for name in needed if name not in mapper or mapper[name].ndim != 2]
    if absent:
        expected = "audio_mapper.prefix_const, audio_mapper.linear.weight and audio_llama_proj.weight, as matrices"
        raise SettingsError("checkpoint", path, f"{expected}; missing or misshapen: {', '.join(absent)}")
    vectors, width = mapper["prefix_const"].shape
    layers = {int(m[1]) for name in mapper if (m := re.match(r"transformer\.layers\.(\d+)\.", name))}
    hidden = mapper.get("transformer.layers.0.mlp.fc1.bias")
    sizes = {
        "embedding_dim": mapper["linear.weight"].shape[1],
        "vectors": vectors,
        "width": width,
        "clip_tokens": mapper["linear.weight"].shape[0] // width,
        "layers": max(layers, default=-1) + 1,
        "mlp_width": 2 * width if hidden is None else hidden.shape[0],
        "hidden_size": mapper["projector.weight"].shape[0],
    }
    ranks = {tensor.shape[0] for name, tensor in lora.items() if ".lora_A." in name}
    if len(ranks) > 1:
        raise SettingsError("checkpoint", path, f"one LoRA rank, not {sorted(ranks)}")
    if ranks:
        sizes["lora_rank"] = ranks.pop()
    return sizes


def import_with_report(
    checkpoint: str,
    llm: str,
    out: str,
    clap: str | None = None,
    config: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
    memory: str | None = None,
) -> ImportReport:
    """Make a model directory of the authors' `.pth`, with a Santa memory where one is given; see `import_reference`."""
    found = read_checkpoint(checkpoint)
    mapper_state, lora_state, skipped = split_state(found["model"])
    sizes = sizes_of(mapper_state, lora_state, checkpoint)
    report = ImportReport(resolve_output(out), sizes, skipped=skipped)
    values = _choose(config, found.get("config"), report)
    place = torch.device("cpu")
    language_model, tokenizer, llm_part = parts.load_llm_outline(llm, trust_remote_code)
    hidden = int(language_model.get_input_embeddings().embedding_dim)
    if hidden != sizes["hidden_size"]:
        raise SettingsError(
            "llm", llm, f"the LLM this checkpoint was trained with, {sizes['hidden_size']} wide, not {hidden}"
        )
    encoder, encoder_part = parts.load_encoder_part(_clap_uri(clap), place)
    if encoder is not None and encoder.dim != sizes["embedding_dim"]:
        raise SettingsError("clap", clap, f"an encoder of {sizes['embedding_dim']} dimensions, not {encoder.dim}")
    bank, memory_part = parts.load_memory_part(memory, encoder_part)
    if bank is not None and bank.dim != sizes["embedding_dim"]:
        raise SettingsError("memory", memory, f"a memory of {sizes['embedding_dim']} dimensions, not {bank.dim}")
    adapter = None
    if lora_state:
        adapter = AdapterConfig(
            rank=sizes["lora_rank"], alpha=values["lora_alpha"], dropout=values["lora_dropout"],
            target_modules=_targets(lora_state),
        )  # fmt: skip
    model_config: ModelConfig = checked(
        ModelConfig,
        {
            "embedding_dim": sizes["embedding_dim"],
            "hidden_size": hidden,
            "mapper": MapperConfig(
                vectors=sizes["vectors"], clip_tokens=sizes["clip_tokens"], width=sizes["width"],
                layers=sizes["layers"], heads=values["heads"], mlp_ratio=sizes["mlp_width"] / sizes["width"],
            ),
            "adapter": adapter,
            "wordings": "reference",
            "max_target_tokens": values["max_target_tokens"],
            "noise_variance": values["noise_variance"],
            "pad_row": True,
            "answer_style": "reference",
            "encoder": encoder_part,
            "llm": llm_part,
            "memory": memory_part,
            "santa": SantaSettings(
                neighbors=values["neighbors"], scale=values["scale"], mix=values["mix"],
                noise_variance=values["noise_variance"],
            ),
            "decoding": DecodingSettings(**{name: values[name] for name in _DECODING}),
        },
        "config",
    )  # fmt: skip
    mapper = build_mapper(model_config.mapper, sizes["embedding_dim"], hidden)
    expected = dict(mapper.state_dict())
    if adapter is not None:
        language_model = parts.add_adapter(language_model, adapter)
        expected |= get_peft_model_state_dict(language_model)
    unread = {line.partition(":")[0] for line in skipped}
    given = {name: tensor for name, tensor in found["model"].items() if name not in unread}
    wrong = compare_keys({their_name(name): tensor for name, tensor in expected.items()}, given)
    if wrong:
        raise SettingsError("checkpoint", checkpoint, "the reference's tensors: " + "; ".join(wrong))
    load_weights(mapper, mapper_state, checkpoint)
    if adapter is not None:
        for name, tensor in lora_state.items():  # the LLM is an outline without weights; the adapter is not
            layer = re.sub(r"\.lora_([AB])\.weight$", r".lora_\1.default", name)
            language_model.get_submodule(layer).weight = torch.nn.Parameter(tensor, requires_grad=False)
    where = {"llm": llm} | ({"encoder": str(_clap_uri(clap))} if clap else {}) | ({"memory": memory} if memory else {})
    model = MatsModel(model_config, mapper.eval(), language_model, tokenizer, encoder=encoder, memory=bank, parts=where)
    model.save(str(report.directory))
    return report


_DECODING = ("beams", "max_new_tokens", "min_length", "no_repeat_ngram", "repetition_penalty", "length_penalty")


def import_reference(
    checkpoint: str, llm: str, out: str, clap: str | None = None, config: dict[str, Any] | None = None
) -> Path:
    """Make a model directory of the authors' checkpoint and return it.

    checkpoint: their `.pth`; llm: directory or hub name of the LLM it was trained with; clap: their CLAP weights, or
    None for a model that works on embeddings; config: settings the tensors do not tell (names: `SETTINGS`), over
    those inside the checkpoint, over the reference's defaults. Raises SettingsError that lists what does not fit.
    """
    return import_with_report(checkpoint, llm, out, clap, config).directory


def _choose(given: dict[str, Any] | None, inside: Any, report: ImportReport) -> dict[str, Any]:
    """Each setting's value, noting in the report where it came from."""
    given = dict(given or {})
    aliases = {theirs: ours for ours, (theirs, _) in SETTINGS.items()}
    known: dict[str, Any] = {}
    for name, value in given.items():
        ours = name if name in SETTINGS else aliases.get(name)
        if ours is not None:
            known[ours] = value
        elif name not in _TOLD_BY_TENSORS:
            raise SettingsError(f"config.{name}", value, "one of " + ", ".join(SETTINGS))
    stored = inside.get("model", inside) if isinstance(inside, dict) else {}
    stored = stored if isinstance(stored, dict) else {}
    for ours, (theirs, default) in SETTINGS.items():
        if ours in known:
            report.chosen[ours] = (known[ours], "given")
        elif theirs in stored:
            report.chosen[ours] = (stored[theirs], "checkpoint")
        else:
            report.chosen[ours] = (default, "default")
    return {name: value for name, (value, _) in report.chosen.items()}


# Names in the authors' own config that say what the tensors or the code say already.
_TOLD_BY_TENSORS = frozenset(
    {
        "use_memory_bank",
        "is_kmeans",
        "group_nums",
        "iter_kmeans",
        "number",
        "save_memory_dir",
        "clap_dim",
        "mapper_dim",
        "prefix_length",
        "clip_length",
        "num_layers",
        "mapping_type",
        "uniform_noise",
        "lora",
        "lora_rank",
        "end_sym",
    }
)


def _targets(lora: dict[str, torch.Tensor]) -> list[str]:
    """The names of the adapted layers (`q_proj`, `v_proj`)."""
    return sorted({name.split(".lora_")[0].rsplit(".", 1)[1] for name in lora})


def _clap_uri(clap: str | None) -> str | None:
    """A bare weights file, with or without ?tokenizer=, is Microsoft's CLAP."""
    if clap is None or clap.startswith(("msclap:", "hf:")):
        return clap
    place = clap.partition("?tokenizer=")[0]
    return f"msclap:{clap}" if place.endswith(".pth") or Path(place).is_file() else clap
