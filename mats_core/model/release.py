"""The authors' released checkpoint → a model directory. Read with `weights_only`: nothing in it is executed."""

from __future__ import annotations

import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model_state_dict
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from pydantic import BaseModel

from mats_core.errors import SettingsError, checked, checked_field
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig, ModelConfig, SantaSettings
from mats_core.model.directory import resolve_output
from mats_core.model.llm import add_adapter, load_llm_outline
from mats_core.model.mapper import build_mapper
from mats_core.model.model import MatsModel, load_encoder_part, load_memory_part
from mats_core.spread import doubt, refuse_collapsed
from mats_core.storage.fetch import local_file
from mats_core.storage.uris import Uri, path_of, uri_text
from mats_core.weights import compare_keys, load_weights, outline, read_pickle, some, tensor_fault

LORA_PREFIX = "llama_model.base_model.model."
_LORA_TENSOR = re.compile(re.escape(LORA_PREFIX) + r"(.+)\.lora_([AB])\.default\.weight")
_MAPPER_LAYER = re.compile(r"transformer\.layers\.([0-9]{1,6})\.")
_MLP_LAYER = re.compile(r"model\.[02]\.(weight|bias)")
_NEVER_APPLIED = ("ln_audio.weight", "ln_audio.bias")


class Setting(NamedTuple):
    """theirs: its name in the checkpoint's own config; default: the reference's; kind, field: where it goes here."""

    theirs: str
    default: Any
    kind: type[BaseModel]
    field: str


# What the tensors do not tell, by the name a user gives it.
SETTINGS: dict[str, Setting] = {
    "lora_alpha": Setting("lora_alpha", 32, AdapterConfig, "alpha"),
    "lora_dropout": Setting("lora_dropout", 0.1, AdapterConfig, "dropout"),
    "heads": Setting("num_heads", 8, MapperConfig, "heads"),
    "noise_variance": Setting("noise_variance", 0.015, ModelConfig, "noise_variance"),
    "max_target_tokens": Setting("max_txt_len", 150, ModelConfig, "max_target_tokens"),
    "neighbors": Setting("k_nums", 32, SantaSettings, "neighbors"),
    "scale": Setting("temperature", 10.0, SantaSettings, "scale"),
    "mix": Setting("lambda", 0.3, SantaSettings, "mix"),
    "beams": Setting("num_beams", 4, DecodingSettings, "beams"),
    "max_new_tokens": Setting("max_new_tokens", 200, DecodingSettings, "max_new_tokens"),
    "min_length": Setting("min_length", 1, DecodingSettings, "min_length"),
    "no_repeat_ngram": Setting("no_repeat_ngram_size", 2, DecodingSettings, "no_repeat_ngram"),
    "repetition_penalty": Setting("repetition_penalty", 2.0, DecodingSettings, "repetition_penalty"),
    "length_penalty": Setting("length_penalty", 1.0, DecodingSettings, "length_penalty"),
}


@dataclass
class ImportReport:
    """What an import did. chosen: setting → (value, where it came from: "given", "checkpoint", "default")."""

    directory: Path
    sizes: dict[str, int]
    chosen: dict[str, tuple[Any, str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For a person to read."""
        found = [f"{name} {value} (from the tensors)" for name, value in self.sizes.items()]
        found += [f"{name} {value} (from: {source})" for name, (value, source) in self.chosen.items()]
        return found + self.notes + [f"skipped {name}" for name in self.skipped]


def read_checkpoint(path: str) -> dict[str, Any]:
    """The checkpoint's dict, whose "model" holds dense, finite tensors by name; SettingsError for anything else."""
    file = local_file(path, "checkpoint")
    found = read_pickle(file, "checkpoint", path, "a checkpoint of tensors and plain values")
    state = found.get("model") if isinstance(found, dict) else None
    if not isinstance(state, dict):
        raise SettingsError("checkpoint", f'{path} holds no "model" of tensors by name', "give the authors' checkpoint")
    wrong = [fault for name, value in state.items() if (fault := tensor_fault(name, value))]
    if wrong:
        raise SettingsError("checkpoint", f"in {path}, {some(wrong)}", "give one of dense, finite tensors by name")
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
        elif found := _LORA_TENSOR.fullmatch(name):
            lora[f"base_model.model.{found[1]}.lora_{found[2]}.weight"] = tensor
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


def sizes_of(
    mapper: dict[str, torch.Tensor], lora: dict[str, torch.Tensor], stated: dict[str, Any], hidden: int
) -> dict[str, int]:
    """The sizes most tensors agree on, so that `compare_keys` names the others.

    Of tensors that are missing: what the checkpoint's config says (`stated`), else the reference's; `hidden` is the
    LLM's width.
    """
    if any(_MLP_LAYER.fullmatch(name) for name in mapper):
        return _mlp_sizes(mapper, hidden) | _lora_rank(lora, stated)
    usual = MapperConfig()

    def sizes(ending: str, axis: int, rank: int = 2) -> list[int]:
        fitting = (tensor for name, tensor in mapper.items() if name.endswith(ending) and tensor.ndim == rank)
        return [tensor.shape[axis] for tensor in fitting]

    def most_frequent(found: Iterable[int], name: str, otherwise: int) -> int:
        return _most_frequent(found, stated.get(name), otherwise)

    widths = [*sizes("prefix_const", 1), *sizes("projector.weight", 1), *sizes(".norm1.weight", 0, 1)]
    width = most_frequent(widths, "mapper_dim", usual.width)
    unfolded = [*sizes("linear.weight", 0), *sizes("linear.bias", 0, 1)]
    tokens = [size // width for size in unfolded if size % width == 0]
    found = {
        "embedding_dim": most_frequent(sizes("linear.weight", 1), "clap_dim", 1024),
        "vectors": most_frequent(sizes("prefix_const", 0), "prefix_length", usual.vectors),
        "width": width,
        "clip_tokens": most_frequent(tokens, "clip_length", usual.clip_tokens),
        "layers": _layers(mapper, stated),
        "mlp_width": most_frequent([*sizes(".mlp.fc1.weight", 0), *sizes(".mlp.fc2.weight", 1)], "", 2 * width),
        "hidden_size": most_frequent([*sizes("projector.weight", 0), *sizes("projector.bias", 0, 1)], "", hidden),
    }
    return found | _lora_rank(lora, stated)


def _most_frequent(found: Iterable[int], said: Any, otherwise: int) -> int:
    """Of equally frequent sizes the first; without any what the config said, else `otherwise`."""
    ranked = Counter(size for size in found if size).most_common(1)
    size = ranked[0][0] if ranked else said
    return size if type(size) is int and size > 0 else otherwise


def _lora_rank(lora: dict[str, torch.Tensor], stated: dict[str, Any]) -> dict[str, int]:
    if not lora and stated.get("lora") is not True:
        return {}
    matrices = [(name, tensor) for name, tensor in lora.items() if tensor.ndim == 2]
    ranks = [tensor.shape[0] if ".lora_A." in name else tensor.shape[1] for name, tensor in matrices]
    return {"lora_rank": _most_frequent(ranks, stated.get("lora_rank"), AdapterConfig().rank)}


def _mlp_sizes(mapper: dict[str, torch.Tensor], hidden: int) -> dict[str, int]:
    """Sizes of the authors' MLP mappers, whose layers are `model.0` and, but for simple_mlp, `model.2`."""

    def shape(name: str, otherwise: tuple[int, int]) -> tuple[int, int]:
        tensor = mapper.get(name)
        return (tensor.shape[0], tensor.shape[1]) if tensor is not None and tensor.ndim == 2 else otherwise

    first = shape("model.0.weight", (1024, 1024))
    last = shape("model.2.weight", first)
    to, width = shape("projector.weight", (hidden, 1024))
    vectors = max(1, last[0] // max(1, width))
    return {"embedding_dim": first[1], "vectors": vectors, "width": width, "hidden_size": to}


def _layers(mapper: dict[str, torch.Tensor], stated: dict[str, Any]) -> int:
    """How many layers the mapper is to have: those numbered 0, 1, … without a gap, or more where the config says so."""
    numbers = {int(found[1]) for name in mapper if (found := _MAPPER_LAYER.match(name))}
    row = next(at for at in count() if at not in numbers)
    promised = stated.get("num_layers")
    return max(row, promised if type(promised) is int else 0) or len(numbers)


def import_with_report(
    checkpoint: Uri,
    llm: Uri,
    out: Uri,
    clap: Uri | None = None,
    config: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
    memory: Uri | None = None,
) -> ImportReport:
    """Make a model directory of the authors' `.pth`, with a Santa memory where one is given; see `import_reference`."""
    checkpoint, llm, out = uri_text(checkpoint), uri_text(llm), uri_text(out)
    target = resolve_output(out).resolve()
    if any(target.iterdir()):
        raise SettingsError("out", f"{out} is not empty", "choose a folder that is empty, or not there yet")
    found = read_checkpoint(checkpoint)
    mapper_state, lora_state, skipped = split_state(found["model"])
    inside = found.get("config")  # of the model, or of all, with a part about the model
    stored = inside.get("model", inside) if isinstance(inside, dict) else {}
    stored = dict(stored) if isinstance(stored, dict) else {}
    report = ImportReport(target, {}, skipped=skipped)
    values = _choose(config, stored, report)
    language_model, tokenizer, llm_part = load_llm_outline(llm, trust_remote_code)
    hidden = int(language_model.get_input_embeddings().embedding_dim)
    sizes = report.sizes = sizes_of(mapper_state, lora_state, stored | (config or {}), hidden)
    if hidden != sizes["hidden_size"]:
        why = f"{llm} is {hidden} wide, and the checkpoint was trained with an LLM {sizes['hidden_size']} wide"
        raise SettingsError("llm", why, "give the LLM it was trained with")
    transformer = "layers" in sizes
    kind = "transformer" if transformer else "reference_mlp" if "model.2.weight" in mapper_state else "simple_mlp"
    if transformer and sizes["width"] % values["heads"]:
        name = _shown_name("heads", report.chosen["heads"][1])
        why = f"{values['heads']} does not divide the mapper's width {sizes['width']}"
        raise SettingsError(name, why, "give the number of heads it was trained with")
    mapper_config: MapperConfig = checked(
        MapperConfig,
        {name: sizes[name] for name in ("vectors", "clip_tokens", "width", "layers") if name in sizes}
        | ({"heads": values["heads"], "mlp_ratio": sizes["mlp_width"] / sizes["width"]} if transformer else {})
        | {"kind": kind},
        "mapper",
    )
    adapter: AdapterConfig | None = None
    if "lora_rank" in sizes:
        targets = {"rank": sizes["lora_rank"], "target_modules": _targets(lora_state, language_model)}
        adapter = checked(AdapterConfig, targets | _fields(AdapterConfig, values), "adapter")
    else:
        report.notes += ["no adapter: the checkpoint holds no LoRA tensors, and its config does not say that it does"]
    mapper = outline(lambda: build_mapper(mapper_config, sizes["embedding_dim"], hidden))
    expected = dict(mapper.state_dict())
    if adapter is not None:
        language_model = add_adapter(language_model, adapter)
        expected |= get_peft_model_state_dict(language_model)
    unread = {line.partition(":")[0] for line in skipped}
    given = {name: tensor for name, tensor in found["model"].items() if name not in unread}
    wrong = compare_keys({their_name(name): tensor for name, tensor in expected.items()}, given)
    if wrong:
        raise SettingsError("checkpoint", f"in {checkpoint}, {some(wrong)}", "give the authors' checkpoint")
    load_weights(mapper, mapper_state, checkpoint)
    if adapter is not None:
        for name, tensor in lora_state.items():  # the LLM is an outline without weights; the adapter is not
            layer = re.sub(r"\.lora_([AB])\.weight$", r".lora_\1.default", name)
            language_model.get_submodule(layer).weight = torch.nn.Parameter(tensor, requires_grad=False)
    encoder, encoder_part = load_encoder_part(_clap_uri(clap), torch.device("cpu"))
    if encoder is not None and encoder.dim != sizes["embedding_dim"]:
        why = f"{clap} has {encoder.dim} dimensions, and the checkpoint takes {sizes['embedding_dim']}"
        raise SettingsError("clap", why, "give the encoder it was trained with")
    if encoder is not None:
        cosine = refuse_collapsed(encoder, str(clap), "clap")
        report.notes.append(f"clap: mean cosine {cosine:.3f} of sentences that have nothing in common{doubt(cosine)}")
    bank, memory_part = load_memory_part(memory, encoder_part)
    if bank is not None and bank.dim != sizes["embedding_dim"]:
        why = f"{memory} has {bank.dim} dimensions, and the checkpoint takes {sizes['embedding_dim']}"
        raise SettingsError("memory", why, "give a memory of the checkpoint's encoder")
    model_config: ModelConfig = checked(
        ModelConfig,
        {
            "embedding_dim": sizes["embedding_dim"], "hidden_size": hidden, "mapper": mapper_config, "adapter": adapter,
            "wordings": "reference", "pad_row": True, "answer_style": "reference",
            "encoder": encoder_part, "llm": llm_part, "memory": memory_part,
            "santa": _fields(SantaSettings, values) | {"noise_variance": values["noise_variance"]},
            "decoding": _fields(DecodingSettings, values),
        } | _fields(ModelConfig, values),
        "config",
    )  # fmt: skip
    places = (("llm", llm), ("encoder", _clap_uri(clap)), ("memory", memory))
    where = {name: uri_text(uri) for name, uri in places if uri}
    model = MatsModel(model_config, mapper.eval(), language_model, tokenizer, encoder=encoder, memory=bank, parts=where)
    draft = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        model.save(str(draft))
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _fields(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Those of the chosen values that belong to one kind of settings, by its own names."""
    return {setting.field: values[name] for name, setting in SETTINGS.items() if setting.kind is kind}


def import_reference(
    checkpoint: Uri, llm: Uri, out: Uri, clap: Uri | None = None, config: dict[str, Any] | None = None
) -> Path:
    """Make a model directory of the authors' checkpoint and return it.

    checkpoint: their `.pth`; llm: directory or hub name of the LLM it was trained with; clap: their CLAP weights, or
    None for a model that works on embeddings; config: settings the tensors do not tell (names: `SETTINGS`), over
    those inside the checkpoint, over the reference's defaults. Raises SettingsError that lists what does not fit.
    """
    return import_with_report(checkpoint, llm, out, clap, config).directory


def _choose(given: dict[str, Any] | None, stored: dict[str, Any], report: ImportReport) -> dict[str, Any]:
    """Each setting's value, noting in the report where it came from; SettingsError for one that cannot be."""
    aliases = {setting.theirs: ours for ours, setting in SETTINGS.items()}
    known: dict[str, Any] = {}
    for name, value in (given or {}).items():
        ours = name if name in SETTINGS else aliases.get(name)
        if ours is not None:
            known[ours] = value
        elif name not in _SAID_BY_TENSORS:
            raise SettingsError(f"config.{name}", "there is no such setting", f"choose one of {', '.join(SETTINGS)}")
    values = {}
    for ours, setting in SETTINGS.items():
        value, source = setting.default, "default"
        if ours in known:
            value, source = known[ours], "given"
        elif setting.theirs in stored:
            value, source = stored[setting.theirs], "checkpoint"
        values[ours] = checked_field(setting.kind, setting.field, value, _shown_name(ours, source))
        report.chosen[ours] = (value, source)
    return values


def _shown_name(name: str, source: str) -> str:
    """A setting's name where the user finds it: the flag, or the entry of the checkpoint's config."""
    return f"checkpoint config.{SETTINGS[name].theirs}" if source == "checkpoint" else name


# Names in the authors' own config that say what the tensors or the code say already.
_TENSORS_SAY = (
    "use_memory_bank is_kmeans group_nums iter_kmeans number save_memory_dir clap_dim mapper_dim prefix_length "
    "clip_length num_layers mapping_type uniform_noise lora lora_rank end_sym"
)
_SAID_BY_TENSORS = frozenset(_TENSORS_SAY.split())


def _targets(lora: dict[str, torch.Tensor], llm: Any) -> list[str]:
    """Names of the adapted layers (`q_proj`, `v_proj`): PEFT's for the LLM's type, and those that tensors name."""
    layers = {name: module for name, module in llm.named_modules() if not isinstance(module, torch.nn.Embedding)}
    named = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in lora}
    real = {name for name in named if getattr(getattr(layers.get(name), "weight", None), "ndim", 0) == 2}
    usual = PEFT_TARGETS.get(str(llm.config.model_type), [])
    return sorted({name.rpartition(".")[2] for name in real} | set(usual))


def _clap_uri(given: Uri | None) -> str | None:
    """A bare weights file, with or without ?tokenizer=, is Microsoft's CLAP."""
    clap = None if given is None else uri_text(given)
    if clap is None or clap.startswith(("msclap:", "hf:")):
        return clap
    place = clap.partition("?tokenizer=")[0]
    return f"msclap:{clap}" if place.endswith(".pth") or (path_of(place) or Path()).is_file() else clap
