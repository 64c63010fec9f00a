"""MATS: a language model that hears through text. Usable without Ray; heavy imports wait until needed."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "MatsModel": "mats_core.model.model",
    "load_model": "mats_core.model.load",
    "ModelConfig": "mats_core.model.config",
    "MapperConfig": "mats_core.model.config",
    "AdapterConfig": "mats_core.model.config",
    "DecodingSettings": "mats_core.generation.settings",
    "SantaSettings": "mats_core.memory.bridges",
    "SantaMemory": "mats_core.memory.santa",
    "HfClapEncoder": "mats_core.encoders.clap",
    "load_encoder": "mats_core.encoders.load",
    "Request": "mats_core.model.asking",
    "Reply": "mats_core.model.asking",
    "Answer": "mats_core.model.asking",
    "SettingsError": "mats_core.errors",
    "inject_noise": "mats_core.memory.noise",
    "import_reference": "mats_core.model.release",
    "check_model_dir": "mats_core.model.directory",
}

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mats_core' has no attribute {name!r}")
