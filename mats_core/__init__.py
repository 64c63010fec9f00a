"""The model: it hears through text, and works without Ray, in a notebook too. Heavy imports wait until they are needed.

storage      bytes at any URI; the only place that knows file systems
audio        file → waveform → windows
encoders     CLAP: texts and sounds into one space
memory       Santa and the other ways from a sound's vector to a text's
model        prompts, tokens, mapper, LLM; model directories
generation   beam search
training     one step, and the schedule
scoring      metrics of answers
soundworld   the embedded world of synthesised sounds, and the model shipped with it

Public are the names below (`mats_core.load_model`). Imports nothing of pipelines and jobs.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "MatsModel": "mats_core.model.model",
    "load_model": "mats_core.model.model",
    "ModelConfig": "mats_core.model.config",
    "MapperConfig": "mats_core.model.config",
    "AdapterConfig": "mats_core.model.config",
    "DecodingSettings": "mats_core.model.config",
    "SantaSettings": "mats_core.model.config",
    "SantaMemory": "mats_core.memory.santa",
    "HfClapEncoder": "mats_core.encoders.clap",
    "load_encoder": "mats_core.encoders.clap",
    "Request": "mats_core.model.asking",
    "Reply": "mats_core.model.asking",
    "Answer": "mats_core.model.asking",
    "SettingsError": "mats_core.errors",
    "inject_noise": "mats_core.memory.noise",
    "import_reference": "mats_core.model.directory",
    "check_model_dir": "mats_core.model.directory",
}

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mats_core' has no attribute {name!r}")
