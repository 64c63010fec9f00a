"""What can be known of a model from its files alone: its facts, and what is wrong with them. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mats_core.audio.windows import chunk_seconds
from mats_core.confidence.calibration import Calibration, read_calibration
from mats_core.encoders.facts import REBUILD, read_hearing, refuse_other_memory, split_uri
from mats_core.errors import SettingsError
from mats_core.generation.fits import fits_config
from mats_core.memory.captions import check_captions
from mats_core.model.config import ModelConfig
from mats_core.model.directory import check_model_dir, model_fingerprint, part_uri, part_uris, resolve
from mats_core.model.places import check_places
from mats_core.pretrained import check_pretrained
from mats_core.storage.descriptions import read_object, read_shapes
from mats_core.storage.fetch import strip_scheme

SMALL_MODEL = 50_000_000
_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class ModelFacts:
    """`sample_rate` in Hz, `window_s` of the encoder and `chunk_s` of a work row in seconds; `size` in bytes;
    `positions` are the tokens that the LLM was made for, 0 where it does not say; `fallback` is why answers are
    written by `transformers`' own `generate`, None where the beam loop writes them; `elsewhere` are the places outside
    the model directory that its parts are at, each allowed; `calibration` is that of its confidence, and `uncalibrated`
    why it has none."""

    fingerprint: str
    encoder_fingerprint: str
    sample_rate: int
    window_s: float
    chunk_s: float
    dim: int
    size: int
    positions: int
    fallback: str | None
    config: ModelConfig
    elsewhere: tuple[str, ...] = ()
    calibration: Calibration | None = None
    uncalibrated: str = ""

    @property
    def generation(self) -> str:
        """How answers are written, in words."""
        return "beam loop" if self.fallback is None else f"transformers' generate: {self.fallback}"


def read_model_facts(uri: str, allow_parts: Sequence[str] = (), trust_remote_code: bool = False) -> ModelFacts:
    """Check a model directory and read its facts; raises SettingsError that says what is missing or broken.

    allow_parts: places outside the directory that its parts may lie at. trust_remote_code: its LLM may run code.
    """
    config = check_model_dir(uri, allow_parts)
    folder = resolve(uri)
    check_weights(folder, config, trust_remote_code)
    encoder = part_uri(folder, config.encoder)
    if encoder is None:
        raise SettingsError("model", f"{uri} has no encoder", "give a model with one")
    rate, window_s = read_hearing(encoder)
    made_with = config.encoder.fingerprint if config.encoder else ""
    fingerprint = model_fingerprint(folder, config)
    calibration, uncalibrated = read_calibration(folder, fingerprint)
    return ModelFacts(
        fingerprint=fingerprint, encoder_fingerprint=made_with, sample_rate=rate,
        window_s=window_s, chunk_s=chunk_seconds(window_s), dim=config.embedding_dim, size=weight_bytes(folder, config),
        positions=_positions(folder, config), fallback=_fallback(folder, config), config=config,
        elsewhere=tuple(check_places(folder, part_uris(config), uri, allow_parts)),
        calibration=calibration, uncalibrated=uncalibrated,
    )  # fmt: skip


def _llm_config(folder: Path, config: ModelConfig) -> dict[str, Any]:
    llm = _directory(folder, config, "llm")
    return read_object(llm / "config.json", "llm") if llm is not None and (llm / "config.json").is_file() else {}


def _positions(folder: Path, config: ModelConfig) -> int:
    stated = (_llm_config(folder, config).get(name) for name in ("max_position_embeddings", "n_positions"))
    return next((value for value in stated if type(value) is int and value > 0), 0)


def _fallback(folder: Path, config: ModelConfig) -> str | None:
    stated = _llm_config(folder, config)
    return fits_config(stated, config.mapper.vectors + config.decoding.max_new_tokens) if stated else None


def threads_worth(size: int, cores: int) -> int:
    """Threads of torch that a model of so many bytes can use: steps of a small one are over before threads have met."""
    return cores if size > SMALL_MODEL else 1


def weight_bytes(folder: Path, config: ModelConfig) -> int:
    """Bytes of weights, of parts that lie on this machine: what an actor needs at least."""
    parts = (part_uri(folder, part) for part in (config.encoder, config.llm, config.memory))
    bare = [split_uri(part)[0] if part.startswith("msclap:") else strip_scheme(part) for part in parts if part]
    places = [folder, *(Path(each).expanduser() for each in bare)]
    files = (path for place in places for path in ([place] if place.is_file() else place.rglob("*")))
    weights = {path.resolve() for path in files if path.suffix in (".safetensors", ".bin", ".faiss", ".pth")}
    return sum(path.stat().st_size for path in weights)


def check_weights(folder: Path, config: ModelConfig, trust_remote_code: bool = False) -> None:
    """SettingsError for weights of a local model directory that are cut short, not finite, or of another model, and
    for an LLM that asks for code of its own, unless it is trusted.

    Reads mapper and adapter, and of LLM and memory headers and configuration only: under a second at full size.
    """
    mapper = folder / "mapper.safetensors"
    with _opened(mapper) as file:
        _check_shape(file, mapper, "projector.weight", 0, config.hidden_size)
        _check_shape(file, mapper, "linear.weight", 1, config.embedding_dim)
        _check_finite(file, mapper)
    llm = _directory(folder, config, "llm")
    stated = read_object(llm / "config.json", "llm") if llm else {}
    if llm:
        width = _stated_size(stated, ("hidden_size", "n_embd"), llm)
        if width is not None and width != config.hidden_size:
            why = f"{llm} is {width} wide, and this model needs an LLM {config.hidden_size} wide"
            raise SettingsError("llm", why, "give the LLM this model was made with")
        check_pretrained(llm, "llm", str(llm), trust_remote_code)
    if config.adapter is not None:
        layers = _stated_size(stated, ("num_hidden_layers", "n_layer"), llm)
        _check_adapter(folder / "adapter" / "adapter_model.safetensors", config.adapter.rank, layers)
    encoder = _directory(folder, config, "encoder")
    if encoder and (encoder / "config.json").is_file():
        check_pretrained(encoder, "encoder", str(encoder))
    memory = _directory(folder, config, "memory")
    if memory:
        _check_memory(memory, config)


def _stated_size(stated: dict[str, Any], names: tuple[str, ...], llm: Path | None) -> int | None:
    """The first of these sizes that an LLM's config.json states; None where it states none at its top."""
    name = next((name for name in names if stated.get(name) is not None), None)
    if name is not None and type(stated[name]) is not int:
        why = f"{name} in the config.json of {llm} is {stated[name]!r:.80}, not a whole number"
        raise SettingsError("llm", why, "give the LLM's own config.json")
    return stated[name] if name is not None else None


def _check_memory(memory: Path, config: ModelConfig) -> None:
    """SettingsError for a memory of another size or encoder, or captions that are cut short."""
    note = read_object(memory / "memory.json", "memory")
    if note.get("dim", config.embedding_dim) != config.embedding_dim:
        why = f"{memory} has {note['dim']} dimensions, and the model's embeddings have {config.embedding_dim}"
        raise SettingsError("memory", why, "give a memory of this model's encoder")
    made_with = note.get("encoder_fingerprint", "")
    if not isinstance(made_with, str):
        why = f"encoder_fingerprint in the memory.json of {memory} is {made_with!r:.80}, not text"
        raise SettingsError("memory", why, REBUILD)
    if config.encoder is not None:
        refuse_other_memory(str(memory), made_with, config.encoder.fingerprint)
    captions = memory / "captions.parquet"
    if captions.is_file():
        check_captions(captions, note.get("count"))


def _check_adapter(path: Path, rank: int, layers: int | None) -> None:
    with _opened(path) as file:
        for name in sorted(file.keys()):
            if ".lora_A." in name:
                _check_shape(file, path, name, 0, rank)
            found = _LAYER.search(name)
            if found and layers is not None and int(found[1]) >= layers:
                why = f"{path} holds {name}, and the LLM has {layers} layers"
                raise SettingsError("model", why, "give the adapter and the LLM of one model")
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

    read_shapes(path, "model")
    with safe_open(path, "np") as file:
        yield file


def _check_shape(file: Any, path: Path, name: str, axis: int, size: int) -> None:
    if name not in file.keys():  # noqa: SIM118 (not a dict)
        return  # an MLP has other names; loading compares every one
    shape = list(file.get_slice(name).get_shape())
    if len(shape) <= axis or shape[axis] != size:
        expected = ", ".join(str(size) if at == axis else "…" for at in range(2))
        why = f"{path} does not fit mats.json: {name} is {shape}, expected [{expected}]"
        raise SettingsError("model", why, "give the weights and the mats.json of one model")


def _check_finite(file: Any, path: Path) -> None:
    for name in file.keys():  # noqa: SIM118 (not a dict)
        if file.get_slice(name).get_dtype() not in ("F16", "F32", "F64"):
            continue  # numpy has no bfloat16; loading looks at those
        if not np.isfinite(file.get_tensor(name)).all():
            raise SettingsError("model", f"in {path}, {name} holds NaN or infinity", "give weights that are finite")
