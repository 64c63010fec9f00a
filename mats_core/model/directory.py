"""The model directory: what is in it, where its parts are, which model it is, and writing one. No torch here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mats_core.encoders.facts import (
    HUB_TOKENIZERS,
    check_files,
    load_gpt2_tokenizer,
    split_uri,
    tokenizer_folder,
    weights_file,
)
from mats_core.encoders.facts import WEIGHTS as MSCLAP_WEIGHTS
from mats_core.errors import SettingsError, checked
from mats_core.model.config import ModelConfig, Part
from mats_core.model.places import check_places, remember_places
from mats_core.storage.descriptions import read_json
from mats_core.storage.fetch import local_directory, looks_like_hub_name, strip_scheme
from mats_core.storage.fingerprint import combine, fingerprint_file, hash_settings
from mats_core.storage.uris import Uri, path_of, uri_text

if TYPE_CHECKING:
    import torch

BUILTIN = Path(__file__).parent / "builtin"
PARTS = ("encoder", "llm", "memory")
"""What a model is made of besides its own weights."""


def check_model_dir(uri: Uri, allow_parts: Sequence[str] = ()) -> ModelConfig:
    """Read and check `mats.json` and that every file it needs is there, without loading anything.

    allow_parts: places (folders or URLs) outside the model directory that its parts may lie at. Takes milliseconds for
    a local directory. Raises SettingsError that says what is missing, or lies where it may not.
    """
    uri = uri_text(uri)
    return read_config(resolve(uri), uri, allow_parts)


def resolve(uri: str) -> Path:
    """The local directory of a model, downloaded once; "builtin" is the embedded one. SettingsError without one."""
    if uri == "builtin":
        if not (BUILTIN / "mats.json").is_file():
            raise SettingsError("model", f"the embedded model is not at {BUILTIN}", "install the package again")
        return BUILTIN
    folder = path_of(uri)
    if folder is None:
        return local_directory(uri, "model")
    if not folder.is_dir():
        raise SettingsError("model", f"there is no directory {uri}", 'give a model directory, or "builtin"')
    return folder


def read_config(folder: Path, uri: str, allow_parts: Sequence[str] = ()) -> ModelConfig:
    """The settings of a local model directory whose files are all there and whose parts lie where they may; `uri` is
    its name in a SettingsError."""
    if not (folder / "mats.json").is_file():
        inside = (folder / "model" / "mats.json").is_file()  # the OUTPUT of a training
        remedy = f"give the one in it, {uri.rstrip('/')}/model" if inside else "give a model directory"
        raise SettingsError("model", f"there is no mats.json in {uri}", remedy)
    config: ModelConfig = checked(
        ModelConfig, read_json(folder / "mats.json", "model", f"mats.json in {uri}"), "mats.json"
    )
    check_places(folder, part_uris(config), uri, allow_parts)
    needed = ["mapper.safetensors"]
    if config.adapter is not None:
        needed += ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    missing = next((name for name in needed if not (folder / name).is_file()), None) or _missing_part(folder, config)
    if missing:
        raise SettingsError("model", f"{missing} is missing in {uri}", "give a complete model directory")
    return config


def _missing_part(folder: Path, config: ModelConfig) -> str | None:
    """The first part, or file of one, that should be on this machine and is not; hub names and URLs are not looked at.

    SettingsError where it is Microsoft's CLAP.
    """
    proofs = {"encoder": ["config.json", MSCLAP_WEIGHTS], "llm": ["config.json"], "memory": ["memory.json"]}
    for name, files in proofs.items():
        part: Part | None = getattr(config, name)
        where = part_uri(folder, part) or "://"
        path = Path(strip_scheme(where))
        if where.startswith("msclap:"):
            check_files(where)
            continue
        if part is None or "://" in where or (not path.is_dir() and looks_like_hub_name(part.uri)):
            continue
        if not path.is_dir():
            return f"its {name} {part.uri}"
        if not any((path / file).is_file() for file in files):
            return f"{part.uri}/{' or '.join(files)}"
    return None


def part_uris(config: ModelConfig) -> dict[str, str]:
    """Part → URI, as `mats.json` has it, of those there are."""
    return {name: part.uri for name in PARTS if (part := getattr(config, name)) is not None}


def part_uri(folder: Path, part: Part | None) -> str | None:
    """Where a part is: relative URIs are inside the model directory."""
    if part is None:
        return None
    if part.uri.startswith("msclap:"):
        place, tokenizer = split_uri(part.uri)
        return f"msclap:{_inside(folder, place)}" + (f"?tokenizer={_inside(folder, tokenizer)}" if tokenizer else "")
    return _inside(folder, part.uri)


def _inside(folder: Path, uri: str) -> str:
    if "://" in uri or uri.startswith(("hf:", "~")) or os.path.isabs(uri):
        return uri
    is_hub = looks_like_hub_name(uri) or uri in HUB_TOKENIZERS
    return uri if is_hub and not (folder / uri).exists() else str(folder / uri)


def recorded_uri(uri: str) -> str:
    """A part's URI as `mats.json` records it: local paths absolute, others as they are."""
    if uri.startswith("msclap:"):
        place, mark, tokenizer = uri[len("msclap:") :].partition("?tokenizer=")
        return f"msclap:{recorded_uri(place)}{mark}{recorded_uri(tokenizer) if tokenizer else ''}"
    if "://" in uri or uri.startswith("hf:") or not os.path.exists(uri):
        return uri
    return os.path.abspath(uri)


def encoder_uri(uri: str, setting: str = "encoder", allow_parts: Sequence[str] = ()) -> str:
    """`uri` itself, or the encoder's own where it names a model directory or "builtin"."""
    path = path_of(uri)
    if uri != "builtin" and not (path is not None and (path / "mats.json").is_file()):
        return uri
    where = part_uri(resolve(uri), check_model_dir(uri, allow_parts).encoder)
    if where is None:
        raise SettingsError(setting, f"the model {uri} has no encoder", "name an encoder, or a model with one")
    return where


def model_fingerprint(folder: Path, config: ModelConfig) -> str:
    """Which model this is: its weights, its parts and the settings that change answers."""
    none = () if config.long_tag else ("long_tag",)  # a model that has none is the one that it was without the setting
    settings = config.model_dump(exclude={*PARTS, "wordings", "noise_variance", *none})
    found = [("settings", hash_settings(settings)), ("mapper", fingerprint_file(folder / "mapper.safetensors"))]
    if config.adapter is not None:
        found.append(("adapter", fingerprint_file(folder / "adapter" / "adapter_model.safetensors")))
    parts = ((name, getattr(config, name)) for name in PARTS)
    return combine([*found, *((name, part.fingerprint if part is not None else "") for name, part in parts)])


def save_model(
    uri: str,
    config: ModelConfig,
    mapper: torch.nn.Module,
    llm: Any,
    parts: dict[str, str],
    include: Sequence[str] = (),
    weights: str = "float32",
) -> None:
    """Write a model directory; see `MatsModel.save`. parts: where encoder, llm and memory were read from."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    unknown = sorted(set(include) - set(PARTS))
    if unknown:
        raise SettingsError("include", f"{', '.join(unknown)} is no part of a model", f"choose of {', '.join(PARTS)}")
    if weights not in ("float32", "float16"):
        raise SettingsError("weights", f'"{weights}" cannot be written', "choose float32 or float16")
    number = getattr(torch, weights)
    folder = resolve_output(uri)

    def stored(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().to("cpu", number).contiguous() for name, tensor in state.items()}

    save_file(stored(mapper.state_dict()), folder / "mapper.safetensors")
    if config.adapter is not None:
        (folder / "adapter").mkdir(exist_ok=True)
        save_file(stored(get_peft_model_state_dict(llm)), folder / "adapter" / "adapter_model.safetensors")
        _write_json(folder / "adapter" / "adapter_config.json", _peft_settings(llm))
    moved: dict[str, Part] = {}
    outside: list[str] = []
    for name in PARTS:
        part: Part | None = getattr(config, name)
        if part is None:
            continue
        if name in include:
            copy_part(parts[name], folder / name)
            moved[name] = Part(uri=name, fingerprint=part.fingerprint)
        elif parts.get(name):
            place = strip_scheme(parts[name])
            where = os.path.abspath(place) if os.path.isdir(place) else part.uri
            moved[name] = Part(uri=where, fingerprint=part.fingerprint)
            outside.append(where)
    remember_places(outside)
    _write_json(folder / "mats.json", config.model_copy(update=moved).model_dump(mode="json"))


def resolve_output(uri: str) -> Path:
    """The local directory to write to, made when missing; SettingsError when that cannot be."""
    folder = path_of(uri)
    if folder is None:
        raise SettingsError("out", f"{uri} is no local directory", "write to one, and copy it to the store afterwards")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "choose a directory that can be written"
        raise SettingsError("out", f"{uri} cannot be made ({error})", remedy) from None
    return folder


def copy_part(source: str, target: Path) -> None:
    """Copy a part's directory into a model directory; nothing happens when it is there already."""
    if source.startswith("msclap:"):
        # weights and, in a folder `gpt2` beside them, their tokenizer: what `msclap:DIRECTORY` reads
        place, tokenizer = split_uri(source)
        file = weights_file(place)
        target.mkdir(parents=True, exist_ok=True)
        if not (target / MSCLAP_WEIGHTS).exists():
            shutil.copyfile(file, target / MSCLAP_WEIGHTS)
        load_gpt2_tokenizer(tokenizer_folder(tokenizer, file.parent)).save_pretrained(target / "gpt2")
        return
    folder = local_directory(source, target.name)
    if folder.resolve() != target.resolve():
        shutil.copytree(folder, target, dirs_exist_ok=True)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def _peft_settings(llm: Any) -> dict[str, Any]:
    """The adapter's PEFT settings, without the path of the machine it was made on."""
    values = llm.peft_config["default"].to_dict()
    values["base_model_name_or_path"] = None
    return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}
