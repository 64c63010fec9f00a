"""What a run must know about a model before loading it; read from its JSON files, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mats_core.audio.windows import chunk_seconds
from mats_core.encoders.msclap_files import split_uri
from mats_core.errors import got_allowed
from mats_core.model.config import ModelConfig
from mats_core.model.directory import check_model_dir, is_msclap, model_fingerprint, part_uri, resolve
from mats_core.model.inspection import check_weights
from mats_core.storage.fetch import local_directory, strip_scheme

MSCLAP_RATE, MSCLAP_WINDOW_S = 44_100, 7.0


@dataclass(frozen=True)
class ModelFacts:
    """`sample_rate` in Hz, `window_s` of the encoder and `chunk_s` of a work row in seconds; `size` in bytes;
    `positions` are the tokens that the LLM was made for, 0 where it does not say."""

    fingerprint: str
    encoder_fingerprint: str
    sample_rate: int
    window_s: float
    chunk_s: float
    dim: int
    size: int
    positions: int
    config: ModelConfig


def read_model_facts(uri: str) -> ModelFacts:
    """Check a model directory and read its facts; raises SettingsError that says what is missing or broken."""
    config = check_model_dir(uri)
    folder = resolve(uri)
    check_weights(folder, config)
    rate, window_s = _hearing(uri, folder, config)
    return ModelFacts(
        fingerprint=model_fingerprint(folder, config),
        encoder_fingerprint=config.encoder.fingerprint if config.encoder else "",
        sample_rate=rate,
        window_s=window_s,
        chunk_s=chunk_seconds(window_s),
        dim=config.embedding_dim,
        size=_size(folder, config),
        positions=_positions(folder, config),
        config=config,
    )


def _hearing(uri: str, folder: Path, config: ModelConfig) -> tuple[int, float]:
    """Sample rate and window of the model's encoder."""
    where = part_uri(folder, config.encoder)
    if where is None:
        raise got_allowed("model", uri, "a model with an encoder; mats.json names none")
    if is_msclap(where):
        return MSCLAP_RATE, MSCLAP_WINDOW_S
    encoder = local_directory(strip_scheme(where), "encoder")
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (encoder / name).is_file():
            values: dict[str, Any] = json.loads((encoder / name).read_bytes())
            values = values.get("feature_extractor", values)
            return int(values.get("sampling_rate", 48_000)), float(values.get("max_length_s", 10))
    raise got_allowed("encoder", where, "a ClapModel directory; preprocessor_config.json is missing")


def _positions(folder: Path, config: ModelConfig) -> int:
    where = part_uri(folder, config.llm)
    told = Path(strip_scheme(where)).expanduser() / "config.json" if where is not None else None
    if told is None or not told.is_file():
        return 0
    values = json.loads(told.read_bytes())
    return int(values.get("max_position_embeddings") or values.get("n_positions") or 0)


def _size(folder: Path, config: ModelConfig) -> int:
    """Bytes of weights, of parts that lie on this machine: what an actor needs at least."""
    total = 0
    places = {folder}
    for part in (config.encoder, config.llm, config.memory):
        where = part_uri(folder, part)
        if where is None:
            continue
        path = Path(split_uri(where)[0] if where.startswith("msclap:") else strip_scheme(where)).expanduser()
        if path.exists():
            places.add(path.resolve())
    seen: set[Path] = set()
    for place in places:
        for path in [place] if place.is_file() else place.rglob("*"):
            real = path.resolve()
            if path.suffix in (".safetensors", ".bin", ".faiss", ".pth") and real not in seen:
                seen.add(real)
                total += real.stat().st_size
    return total
