"""What a job must know about an encoder before loading it; read from its files, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mats_core.encoders.msclap_files import read_msclap_facts
from mats_core.errors import got_allowed
from mats_core.model.directory import BUILTIN, check_model_dir, is_msclap, part_uri, resolve
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import fingerprint_directory


@dataclass(frozen=True)
class EncoderFacts:
    """`uri` is what `load_encoder` takes, `size` the bytes of its weights."""

    uri: str
    fingerprint: str
    dim: int
    size: int


def read_encoder_facts(uri: str, setting: str = "encoder") -> EncoderFacts:
    """Facts of msclap:FILE, hf:NAME, a ClapModel directory, a model directory or "builtin"; raises SettingsError."""
    where = encoder_uri(uri, setting)
    if is_msclap(where):
        found = read_msclap_facts(where)
        return EncoderFacts(where, found.fingerprint, found.dim, found.size)
    folder = local_directory(where, setting)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("model_type") != "clap":
            raise ValueError(f"its config.json is of a {config.get('model_type')}")
        dim = int(config["projection_dim"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise got_allowed(setting, uri, f"a ClapModel directory ({error})") from None
    if not list(folder.glob("*.safetensors")) + list(folder.glob("*.bin")):
        raise got_allowed(setting, uri, "a complete ClapModel directory; its weights are missing")
    return EncoderFacts(where, fingerprint_directory(folder), dim, _size(folder))


def encoder_uri(uri: str, setting: str = "encoder") -> str:
    """`uri` itself, or the encoder's own where it names a model directory."""
    path = Path(uri.removeprefix("file://")).expanduser()
    if uri != "builtin" and not (path / "mats.json").is_file():
        return uri
    config = check_model_dir(uri)
    where = part_uri(BUILTIN if uri == "builtin" else resolve(uri), config.encoder)
    if where is None:
        raise got_allowed(setting, uri, "a model with an encoder; its mats.json names none")
    return where


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.suffix in (".safetensors", ".bin"))
