"""What can be found wrong with a model's weights from their files alone: no torch, and nothing is built."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.errors import got_allowed
from mats_core.model.config import ModelConfig
from mats_core.model.directory import part_uri
from mats_core.storage.fetch import check_safetensors, strip_scheme

_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


def check_weights(folder: Path, config: ModelConfig) -> None:
    """SettingsError for weights of a local model directory that are cut short, not finite, or of another model.

    Reads mapper and adapter, and of LLM and memory headers and configuration only: under a second at full size.
    """
    mapper = folder / "mapper.safetensors"
    with _opened(mapper) as file:
        _check_shape(file, mapper, "projector.weight", 0, config.hidden_size)
        _check_shape(file, mapper, "linear.weight", 1, config.embedding_dim)
        _check_finite(file, mapper)
    llm = _directory(folder, config, "llm")
    told = _read_json(llm / "config.json", "llm") if llm else {}
    if llm:
        width = _told_size(told, ("hidden_size", "n_embd"), llm)
        if width is not None and width != config.hidden_size:
            raise got_allowed("llm", str(llm), f"an LLM of width {config.hidden_size}, not {width}")
        for part in sorted(llm.glob("*.safetensors")):
            check_safetensors(part, "llm", str(part))
    if config.adapter is not None:
        layers = _told_size(told, ("num_hidden_layers", "n_layer"), llm)
        _check_adapter(folder / "adapter" / "adapter_model.safetensors", config.adapter.rank, layers)
    memory = _directory(folder, config, "memory")
    if memory:
        _check_memory(memory, config)


def _told_size(told: dict[str, Any], names: tuple[str, ...], llm: Path | None) -> int | None:
    """The first of these sizes that an LLM's config.json tells; None where it tells none at its top."""
    for name in names:
        size = told.get(name)
        if type(size) is int:
            return size
        if size is not None:
            raise got_allowed("llm", str(llm), f"a config.json whose {name} is a whole number, not {size!r:.80}")
    return None


def _check_memory(memory: Path, config: ModelConfig) -> None:
    """SettingsError for a memory of another size or encoder, or captions that are cut short."""
    note = _read_json(memory / "memory.json", "memory")
    if note.get("dim", config.embedding_dim) != config.embedding_dim:
        raise got_allowed("memory", str(memory), f"{config.embedding_dim} dimensions, not {note['dim']}")
    made_with = note.get("encoder_fingerprint", "")
    if not isinstance(made_with, str):
        raise got_allowed(
            "memory", str(memory), f"a memory.json whose encoder_fingerprint is text, not {made_with!r:.80}"
        )
    if config.encoder is not None and made_with not in ("", config.encoder.fingerprint):
        allowed = (
            f"a memory of this model's encoder {config.encoder.fingerprint[:12]}, not of {made_with[:12]}; "
            f'rebuild it with "mats build-memory"'
        )
        raise got_allowed("memory", str(memory), allowed)
    captions = memory / "captions.parquet"
    if captions.is_file():
        _check_captions(captions, note.get("count"))


def _check_captions(path: Path, count: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names, rows = set(file.schema_arrow.names), file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0][:200]
        raise got_allowed("memory", str(path), f"a whole Parquet file of captions ({first})") from None
    if not {"caption", "source"} <= names or count not in (None, rows):
        raise got_allowed(
            "memory", str(path), f"columns caption and source of {count} rows, not {rows} rows of {sorted(names)}"
        )


def _check_adapter(path: Path, rank: int, layers: int | None) -> None:
    with _opened(path) as file:
        for name in sorted(file.keys()):
            if ".lora_A." in name:
                _check_shape(file, path, name, 0, rank)
            found = _LAYER.search(name)
            if found and layers is not None and int(found[1]) >= layers:
                raise got_allowed("model", str(path), f"an adapter of this LLM of {layers} layers; {name} is unknown")
        _check_finite(file, path)


def _directory(folder: Path, config: ModelConfig, name: str) -> Path | None:
    """The part's directory where it is on this machine; a hub name or URL is looked at when it is loaded."""
    where = part_uri(folder, getattr(config, name))
    if where is None or "://" in where:
        return None
    path = Path(strip_scheme(where)).expanduser()
    return path if path.is_dir() else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    check_safetensors(path, "model", str(path))
    with safe_open(path, "np") as file:
        yield file


def _check_shape(file: Any, path: Path, name: str, axis: int, size: int) -> None:
    if name not in file.keys():  # noqa: SIM118 (not a dict)
        return  # an MLP has other names; loading compares every one
    shape = list(file.get_slice(name).get_shape())
    if len(shape) <= axis or shape[axis] != size:
        expected = ", ".join(str(size) if at == axis else "…" for at in range(2))
        raise got_allowed("model", str(path), f"weights that fit mats.json: {name} is {shape}, expected [{expected}]")


def _check_finite(file: Any, path: Path) -> None:
    for name in file.keys():  # noqa: SIM118 (not a dict)
        if file.get_slice(name).get_dtype() not in ("F16", "F32", "F64"):
            continue  # numpy has no bfloat16; loading looks at those
        if not np.isfinite(file.get_tensor(name)).all():
            raise got_allowed("model", str(path), f"finite weights; {name} holds NaN or infinity")


def _read_json(path: Path, setting: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise got_allowed(setting, str(path), f"a readable JSON file ({error})") from None
    if not isinstance(values, dict):
        raise got_allowed(setting, str(path), f"a JSON object, not a {type(values).__name__}")
    return values
