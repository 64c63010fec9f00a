"""The model directory: check, load, save. Weights are safetensors; nothing in it is ever executed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mats_core.errors import got_allowed
from mats_core.model.config import ModelConfig, Part, checked
from mats_core.storage.fetch import looks_like_hub_name, strip_scheme
from mats_core.storage.fingerprint import combine, fingerprint_file, hash_settings

if TYPE_CHECKING:
    import torch

    from mats_core.model.model import MatsModel

BUILTIN = Path(__file__).parent / "builtin"
_PARTS = ("encoder", "llm", "memory")
MSCLAP_WEIGHTS = "CLAP_weights_2023.pth"  # note: here, since clap.py needs torch


def check_model_dir(uri: str | os.PathLike[str]) -> ModelConfig:
    """Read and check `mats.json` and that every file it needs is there, without loading anything.

    Takes milliseconds for a local directory. Raises SettingsError that says what is missing.
    """
    uri = os.fspath(uri)
    return _read(resolve(uri), uri)


def resolve(uri: str) -> Path:
    """The local directory of a model; `"builtin"` is the embedded one."""
    if uri == "builtin":
        if not (BUILTIN / "mats.json").is_file():
            raise got_allowed("model", uri, f"a model directory; the embedded one is not at {BUILTIN}")
        return BUILTIN
    if "://" in uri and not uri.startswith("file://"):
        from mats_core.storage.fetch import local_directory

        return local_directory(uri, "model")
    folder = Path(uri.removeprefix("file://")).expanduser()
    if not folder.is_dir():
        raise got_allowed("model", uri, '"builtin", or a model directory that exists')
    return folder


def _read(folder: Path, uri: str) -> ModelConfig:
    try:
        values = json.loads((folder / "mats.json").read_bytes())
    except FileNotFoundError:
        raise got_allowed("model", uri, "a model directory; it holds a mats.json") from None
    except ValueError as error:
        raise got_allowed("model", uri, f"a model directory whose mats.json is JSON ({error})") from None
    config: ModelConfig = checked(ModelConfig, values, "mats.json")
    needed = ["mapper.safetensors"]
    if config.adapter is not None:
        needed += ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    for name in needed:
        if not (folder / name).is_file():
            raise got_allowed("model", uri, f"a complete model directory; {name} is missing")
    for name in _PARTS:
        part: Part | None = getattr(config, name)
        where = part_uri(folder, part)
        if part is None or where is None:
            continue
        if where.startswith("msclap:"):
            from mats_core.encoders.msclap_files import check_files

            check_files(where)
            continue
        if "://" in where:
            continue
        path = Path(strip_scheme(where))
        if not path.is_dir() and not looks_like_hub_name(part.uri):
            raise got_allowed("model", uri, f"a complete model directory; its {name} {part.uri} is missing")
        proofs = {"memory": ["memory.json"], "llm": ["config.json"], "encoder": ["config.json", MSCLAP_WEIGHTS]}[name]
        proof = " or ".join(proofs)
        if path.is_dir() and not any((path / each).is_file() for each in proofs):
            raise got_allowed("model", uri, f"a complete model directory; {part.uri}/{proof} is missing")
    return config


def part_uri(folder: Path, part: Part | None) -> str | None:
    """Where a part is: relative URIs are inside the model directory."""
    if part is None:
        return None
    inside = folder / part.uri
    return str(inside) if not os.path.isabs(part.uri) and inside.exists() else part.uri


def is_msclap(uri: str) -> bool:
    """Whether an encoder's URI is Microsoft's CLAP: `msclap:…`, or a local directory with its weights in it."""
    return uri.startswith("msclap:") or (Path(uri).expanduser() / MSCLAP_WEIGHTS).is_file()


def load_model(
    uri: str | os.PathLike[str],
    device: str = "auto",
    dtype: str = "auto",
    *,
    trust_remote_code: bool = False,
    encoder: bool = True,
    memory: bool = True,
    merge_adapter: bool | None = None,
) -> MatsModel:
    """Load a model directory.

    dtype: of the LLM; "auto" is bfloat16 on CUDA and float32 on CPU. encoder=False or memory=False leaves that
    part out (answers from embeddings; answers without Santa). merge_adapter adds LoRA into the LLM's weights,
    which is faster and, in float32, exact; by default that is done in float32 only.
    Raises SettingsError for anything missing, broken or of another model.
    """
    uri = os.fspath(uri)
    folder = resolve(uri)
    config = _read(folder, uri)

    import torch

    from mats_core.model import llm as parts
    from mats_core.model.mapper import build_mapper
    from mats_core.model.model import MatsModel

    place, number = parts.pick_device(device), parts.pick_dtype(dtype, device)
    where = {name: part_uri(folder, getattr(config, name)) for name in _PARTS}
    llm, tokenizer, llm_part = parts.load_llm(str(where["llm"]), place, number, trust_remote_code)
    _same("llm", where["llm"], config.llm, llm_part)
    hidden = int(llm.get_input_embeddings().embedding_dim)
    if hidden != config.hidden_size:
        raise got_allowed("llm", where["llm"], f"an LLM of width {config.hidden_size}, not {hidden}")
    with torch.device("meta"):  # shapes alone, until they are known to be those of the file
        mapper = build_mapper(config.mapper, config.embedding_dim, hidden)
    load_weights(mapper, read_tensors(folder / "mapper.safetensors", "model"), "mapper.safetensors")
    if config.adapter is not None:
        state = read_tensors(folder / "adapter" / "adapter_model.safetensors", "model")
        _check_rank(state, config.adapter.rank)
        llm = parts.add_adapter(llm, config.adapter)
        load_adapter(llm, state)
        if merge_adapter if merge_adapter is not None else number is torch.float32:
            llm.merge_adapter()
    listener, encoder_part = parts.load_encoder_part(where["encoder"] if encoder else None, place)
    _same("encoder", where["encoder"], config.encoder, encoder_part)
    bank, memory_part = parts.load_memory_part(where["memory"] if memory else None, config.encoder)
    _same("memory", where["memory"], config.memory, memory_part)
    llm.requires_grad_(False)
    return MatsModel(
        config,
        mapper.to(place).eval(),
        llm.to(place).eval(),
        tokenizer,
        encoder=listener,
        memory=bank,
        parts={name: path for name, path in where.items() if path},
        fingerprint=model_fingerprint(folder, config),
    )


def model_fingerprint(folder: Path, config: ModelConfig) -> str:
    """Which model this is: its weights, its parts and the settings that change answers."""
    settings = config.model_dump(exclude={"encoder", "llm", "memory", "wordings", "noise_variance"})
    found = [("settings", hash_settings(settings)), ("mapper", fingerprint_file(folder / "mapper.safetensors"))]
    if config.adapter is not None:
        found.append(("adapter", fingerprint_file(folder / "adapter" / "adapter_model.safetensors")))
    for name in _PARTS:
        part: Part | None = getattr(config, name)
        found.append((name, part.fingerprint if part is not None else ""))
    return combine(found)


def _same(name: str, where: str | None, recorded: Part | None, found: Part | None) -> None:
    if recorded is None or found is None or recorded.fingerprint in ("", found.fingerprint):
        return
    raise got_allowed(
        name,
        where,
        f"the {name} this model was made with ({recorded.fingerprint[:12]}); this one is {found.fingerprint[:12]}",
    )


def save_model(
    model: MatsModel,
    uri: str | os.PathLike[str],
    include: Sequence[str] = (),
    *,
    weights: str = "float32",
) -> Path:
    """Write a model directory and return it.

    include: which of encoder, llm, memory are copied inside; the others are named by URI. weights: "float32",
    or "float16" for half the size (mapper and adapter are rounded; `load_model` reads either).
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    unknown = sorted(set(include) - set(_PARTS))
    if unknown:
        raise got_allowed("include", ", ".join(unknown), ", ".join(_PARTS))
    if weights not in ("float32", "float16"):
        raise got_allowed("weights", weights, "float32, float16")
    number = getattr(torch, weights)

    def stored(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().to("cpu", number).contiguous() for name, tensor in state.items()}

    folder = resolve_output(os.fspath(uri))
    save_file(stored(model.mapper.state_dict()), folder / "mapper.safetensors")
    if model.config.adapter is not None:
        (folder / "adapter").mkdir(exist_ok=True)
        state = get_peft_model_state_dict(model.llm)
        save_file(stored(state), folder / "adapter" / "adapter_model.safetensors")
        _write_json(folder / "adapter" / "adapter_config.json", _peft_settings(model.llm))
    moved: dict[str, Part] = {}
    for name in include:
        part: Part | None = getattr(model.config, name)
        if part is None:
            continue
        copy_part(model.parts[name], folder / name)
        moved[name] = Part(uri=name, fingerprint=part.fingerprint)
    for name in set(_PARTS) - set(include):
        part = getattr(model.config, name)
        if part is not None and model.parts.get(name):
            kept = strip_scheme(model.parts[name])
            absolute = os.path.abspath(kept) if os.path.isdir(kept) else part.uri
            moved[name] = Part(uri=absolute, fingerprint=part.fingerprint)
    config = model.config.model_copy(update=moved)
    _write_json(folder / "mats.json", config.model_dump(mode="json"))
    return folder


def resolve_output(uri: str) -> Path:
    """The local directory to write to, made when missing; SettingsError when that cannot be."""
    if "://" in uri and not uri.startswith("file://"):
        raise got_allowed("out", uri, "a local directory; copy it to an object store afterwards")
    folder = Path(uri.removeprefix("file://")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise got_allowed("out", uri, f"a directory that can be written ({error})") from None
    return folder


def copy_part(source: str, target: Path) -> None:
    """Copy a part's directory into a model directory; nothing happens when it is there already."""
    from mats_core.storage.fetch import local_directory

    if source.startswith("msclap:"):
        _copy_msclap(source, target)
        return
    folder = local_directory(source, target.name)
    if folder.resolve() != target.resolve():
        shutil.copytree(folder, target, dirs_exist_ok=True)


def _copy_msclap(source: str, target: Path) -> None:
    """Microsoft's weights and, in a folder `gpt2` beside them, their tokenizer: what `msclap:DIRECTORY` reads."""
    from mats_core.encoders.msclap_files import load_gpt2_tokenizer, split_uri, tokenizer_folder, weights_file

    place, tokenizer = split_uri(source)
    file = weights_file(place)
    target.mkdir(parents=True, exist_ok=True)
    if not (target / MSCLAP_WEIGHTS).exists():
        shutil.copyfile(file, target / MSCLAP_WEIGHTS)
    load_gpt2_tokenizer(tokenizer_folder(tokenizer, file.parent)).save_pretrained(target / "gpt2")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def _peft_settings(llm: Any) -> dict[str, Any]:
    """The adapter's PEFT settings, without the path of the machine it was made on."""
    values = llm.peft_config["default"].to_dict()
    values["base_model_name_or_path"] = None
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}


def read_tensors(path: Path, setting: str) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; SettingsError when it is broken or holds NaN."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise got_allowed(setting, str(path), f"a whole safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise got_allowed(setting, str(path), f"finite weights; {name} holds NaN or infinity")
    return tensors


def load_weights(module: torch.nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Put `state` in place of the weights of `module`, which may be an outline on the meta device.

    SettingsError lists every key that is missing, unknown or misshapen.
    """
    from mats_core.model.llm import some

    expected = module.state_dict()
    wrong = compare_keys(expected, state)
    if wrong:
        raise got_allowed("model", name, "weights that fit mats.json; " + some(wrong))
    # copies: what was read may be a view of the file, and the file may be written again
    copies = {key: tensor.to(expected[key].dtype, copy=True) for key, tensor in state.items()}
    module.load_state_dict(copies, assign=True)


def load_adapter(llm: Any, state: dict[str, torch.Tensor]) -> None:
    """Copy LoRA weights (PEFT's names) into a wrapped LLM, under the same checks."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    from mats_core.model.llm import some

    expected = get_peft_model_state_dict(llm)
    wrong = compare_keys(expected, state)
    if wrong:
        raise got_allowed("model", "adapter", "an adapter of this LLM; " + some(wrong))
    set_peft_model_state_dict(llm, {key: tensor.to(expected[key].dtype) for key, tensor in state.items()})


def _check_rank(state: dict[str, torch.Tensor], rank: int) -> None:
    """SettingsError where an adapter's weights are of another rank than mats.json says: before any are made."""
    for key, tensor in state.items():
        if ".lora_A." in key and tensor.shape[:1] != (rank,):
            expected = f"an adapter of rank {rank}, as mats.json says; {key} is {list(tensor.shape)}"
            raise got_allowed("model", "adapter", expected)


def compare_keys(expected: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> list[str]:
    """What does not fit, and what was expected, in words; empty when all does."""
    wrong = [f"{key} is missing, expected {list(expected[key].shape)}" for key in sorted(set(expected) - set(given))]
    wrong += [
        f"{key} is {list(given[key].shape)}, expected {list(expected[key].shape)}"
        for key in sorted(set(expected) & set(given))
        if given[key].shape != expected[key].shape
    ]
    return wrong + [f"{key} is unknown" for key in sorted(set(given) - set(expected))]


def import_reference(
    checkpoint: str, llm: str, out: str, clap: str | None = None, config: dict[str, Any] | None = None
) -> Path:
    """Make a model directory of the authors' `.pth`; see `reference.import_reference`."""
    from mats_core.model.release import import_reference as run

    return run(checkpoint, llm, out, clap, config)
