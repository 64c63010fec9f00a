"""MATS: a language model that hears through text. Usable without Ray; heavy imports wait until needed."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "MatsModel": "mats_core.model",
    "load_model": "mats_core.model",
    "ModelConfig": "mats_core.config",
    "MapperConfig": "mats_core.config",
    "AdapterConfig": "mats_core.config",
    "DecodingSettings": "mats_core.config",
    "SantaSettings": "mats_core.config",
    "SantaMemory": "mats_core.santa",
    "HfClapEncoder": "mats_core.clap",
    "load_encoder": "mats_core.clap",
    "Request": "mats_core.answering",
    "Reply": "mats_core.answering",
    "Answer": "mats_core.answering",
    "SettingsError": "mats_core.errors",
    "inject_noise": "mats_core.noise",
    "import_reference": "mats_core.checkpoint",
    "check_model_dir": "mats_core.checkpoint",
}

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mats_core' has no attribute {name!r}")
