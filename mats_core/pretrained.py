"""A directory of `transformers` that others made, looked at before the library reads it.

The library believes what it reads: it follows the names that files give, builds what a configuration asks for, and
fetches code that one names. Here sizes are held against the weights there are, names against the directory, and what
asks for code is refused unless the user trusts it.
"""

from __future__ import annotations

import importlib.util
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mats_core.errors import SettingsError, first_line
from mats_core.storage.descriptions import read_json, read_object, read_shapes
from mats_core.storage.names import name_fault

MOST_LAYERS = 1000
_MOST_ITEMS = 100_000  # of a list in a configuration
_MOST_NUMBER = 1 << 40
_MOST_VOCABULARY_BYTES = 128 << 20  # the largest tokenizers have 35 MB
_MOST_GROWTH = 10_000  # letters that one letter may become before it is cut into tokens
_LAYERS = re.compile(r"layer|block|depth|stage")
_TRUST = "choose another model, or, where you trust who made it, give --trust-remote-code (trust_remote_code=True)"
_OWN_QUANTIZERS = ("bitsandbytes", "gptq", "awq")  # packages that are installed, or not; they fetch nothing
_NEVER_READ = ("special_tokens_map_file", "added_tokens_file")  # the library writes them down only


def check_pretrained(
    folder: Path, setting: str, shown: str, trusted: bool = False
) -> tuple[dict[str, Any], dict[str, list[int]] | None]:
    """Its configuration and `weight_shapes`; SettingsError for a directory of a model and its tokenizer that is not
    safe to load. Takes milliseconds.

    trusted: the user lets it run code of its own. `shown` is what a message calls the directory.
    """
    config = read_object(folder / "config.json", setting) if (folder / "config.json").is_file() else {}
    if (folder / "adapter_config.json").exists():
        why = f"{shown} holds an adapter, which names another model to put it on"
        raise SettingsError(setting, why, "give the model itself, with the adapter merged into it")
    shapes = weight_shapes(folder, setting)
    if config:
        _check_numbers(config, MOST_LAYERS if shapes is None else len(shapes), setting, f"the config.json of {shown}")
    if not trusted:
        _refuse_code(folder, config, setting, shown)
    check_tokenizer(folder, setting, shown)
    return config, shapes


def weight_shapes(folder: Path, setting: str) -> dict[str, list[int]] | None:
    """Tensor → shape of a directory's safetensors files; None where its weights are pickles, whose names are inside.

    SettingsError for files that are broken or bear what is no tensor, and for an index that names others.
    """
    for index in sorted(folder.glob("*.index.json")):
        names = read_object(index, setting).get("weight_map")
        for name in sorted({str(each) for each in names.values()}) if isinstance(names, dict) else []:
            if (fault := name_fault(name)) is not None:
                raise SettingsError(
                    setting, f"{index} names the file {name!r:.80}, which {fault}", "choose another model"
                )
    files = sorted(folder.glob("*.safetensors"))
    for pickle in sorted(folder.glob("*.bin")):
        check_zip(pickle, setting)
    if not files:
        return None
    return {name: shape for file in files for name, shape in read_shapes(file, setting).items()}


def check_zip(file: Path, setting: str, shown: str = "") -> None:
    """SettingsError for a zip (what `torch.save` writes) whose parts are compressed: it stores them as they are, and
    a few bytes could become more than memory holds."""
    if not file.is_file() or not zipfile.is_zipfile(file):
        return  # an older kind of file, or a broken one: torch says so
    try:
        with zipfile.ZipFile(file) as parts:
            inside = parts.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise SettingsError(
            setting, f"{shown or file} is cut short or broken ({first_line(error)})", "copy it again"
        ) from None
    packed = any(each.compress_type != zipfile.ZIP_STORED for each in inside)
    if packed or sum(each.file_size for each in inside) > file.stat().st_size:
        why = f"{shown or file} holds compressed parts, which torch.save never writes"
        raise SettingsError(setting, why, "give the weights as they were published")


def _check_numbers(config: dict[str, Any], tensors: int, setting: str, shown: str) -> None:
    for name, value in _values(config):
        if isinstance(value, list) and len(value) > _MOST_ITEMS:
            raise SettingsError(
                setting, f"{name} in {shown} has {len(value)} items", "give the model's own config.json"
            )
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if value > (min(MOST_LAYERS, max(64, tensors)) if _LAYERS.search(name) else _MOST_NUMBER):
            why = f"{name} in {shown} is {value}, and its weights are {tensors} tensors"
            raise SettingsError(setting, why, "give weights and config.json of one model")


def _values(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        yield name, value
        if isinstance(value, dict):
            yield from _values(value)
        if isinstance(value, list):
            yield from ((name, each) for each in value if _LAYERS.search(name))


def _refuse_code(folder: Path, config: dict[str, Any], setting: str, shown: str) -> None:
    if (folder / "custom_generate").exists():  # note: transformers runs it for any local directory, trusted or not
        raise SettingsError(setting, f"{shown} brings Python files of its own (custom_generate)", _TRUST)
    for name, value in _values(config):
        kernels = isinstance(value, str) and ("/" in value or (value.startswith("flash") and _fetches_flash()))
        if name.endswith("implementation") and (kernels or isinstance(value, dict)):
            raise SettingsError(setting, f"{shown} asks for code from elsewhere ({name}: {value!r:.80})", _TRUST)
        if name == "quantization_config" and isinstance(value, dict):
            method = value.get("quant_method", "bitsandbytes")
            if method not in _OWN_QUANTIZERS:
                raise SettingsError(setting, f"{shown} is quantized by {method!r:.80}, which may fetch code", _TRUST)


def _fetches_flash() -> bool:
    """Whether transformers would fetch an attention from the hub in place of a package that is not installed."""
    return importlib.util.find_spec("kernels") is not None and importlib.util.find_spec("flash_attn") is None


def check_outline(model: Any, shapes: dict[str, list[int]] | None, setting: str, shown: str, packed: bool) -> None:
    """SettingsError where a model built without numbers (on the meta device) is larger than the weights there are, by
    more than a part that is missing can explain. packed: the weights are quantized."""
    if shapes is None:
        return
    there = sum(math.prod(shape) for shape in shapes.values()) * (8 if packed else 1)
    asked = sum(each.numel() for each in {id(each): each for each in model.parameters()}.values())
    tables = sum(each.numel() for each in model.buffers())
    if asked > 2 * there + (1 << 20) or tables > there + (1 << 30):
        why = f"the config.json of {shown} asks for {asked + tables} numbers, and its weights have {there}"
        raise SettingsError(setting, why, "give weights and config.json of one model")


# -- tokenizers ----------------------------------------------------------------------------------------------------


def check_tokenizer(folder: Path, setting: str, shown: str) -> None:
    """SettingsError for a tokenizer that reads files elsewhere, is beyond reason, or makes texts grow without bound."""
    for file in sorted(folder.iterdir()):
        large = file.suffix in (".json", ".txt", ".model", ".jinja") and file.stat().st_size > _MOST_VOCABULARY_BYTES
        if large or (file.exists() and not file.is_file() and not file.is_dir()):
            what = f"has more than {_MOST_VOCABULARY_BYTES >> 20} MiB" if large else "is a pipe or a device, not a file"
            raise SettingsError(setting, f"{file} {what}", "give the model's own directory")
    if (folder / "tokenizer_config.json").is_file():
        settings = read_object(folder / "tokenizer_config.json", setting)
        named = [
            (name, value) for name, value in settings.items() if name.endswith("_file") and name not in _NEVER_READ
        ]
        listed = settings.get("fast_tokenizer_files")
        named += [("fast_tokenizer_files", each) for each in (listed if isinstance(listed, list) else [])]
        for name, value in named:
            if isinstance(value, str) and ("/" in value or name_fault(value) is not None):
                why = f"{name} in the tokenizer_config.json of {shown} names {value!r:.80}, a file elsewhere"
                raise SettingsError(setting, why, "remove the name, where you trust who gave it")
    for name in ("vocab.json", "added_tokens.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_json(folder / name, setting, most_bytes=_MOST_VOCABULARY_BYTES)
    if (folder / "tokenizer.json").is_file():
        values = read_json(folder / "tokenizer.json", setting, most_bytes=_MOST_VOCABULARY_BYTES)
        steps = [values.get(each) for each in ("normalizer", "decoder")] if isinstance(values, dict) else []
        for step in steps:
            if _growth(step) > _MOST_GROWTH:
                why = f"the tokenizer.json of {shown} makes texts grow more than {_MOST_GROWTH} times"
                raise SettingsError(setting, why, "give the model's own tokenizer")


def _growth(step: Any) -> float:
    """By how much a step of a tokenizer may multiply the letters of a text, at most."""
    if isinstance(step, list):
        return math.prod(min(_growth(each), 1e6) for each in step)
    if not isinstance(step, dict):
        return 1
    kind = step.get("type")
    if kind == "Sequence":
        return _growth([each for name in ("normalizers", "decoders") for each in step.get(name) or []])
    if kind == "Replace":
        found, content = step.get("pattern"), len(str(step.get("content", "")))
        literal = found.get("String") if isinstance(found, dict) else None
        return max(1, content / len(literal)) if isinstance(literal, str) and literal else 1 + content
    if kind == "Precompiled":  # its text: what letters become, between zeros, behind a table in base 64
        return max(18, len(str(step.get("precompiled_charsmap", ""))) / (1 << 20) * _MOST_GROWTH)
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend", "")))
    return 18 if kind in ("NFKC", "NFKD", "NFC", "NFD", "BertNormalizer", "Nmt") else 4 if kind == "ByteLevel" else 1


@contextmanager
def panics_told(refused: Callable[[str], Exception]) -> Iterator[None]:
    """A panic of the tokenizers library, which is no Exception, as the error that `refused` makes of its words."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise refused(first_line(error)) from None
