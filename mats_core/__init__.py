"""MATS: a language model that hears through text. Usable without Ray; heavy imports wait until needed.

    from mats_core import load_model

    model = load_model("builtin")
    print(model.answer("street.wav"))
    for answer in model.answers("street.wav", "QA", question="Is a dog barking?", segments=True):
        print(answer.start_s, answer.text, answer.segments)

What is named here is the Python API; its modules may move. `errors`, `device` and `weights` are for all rooms;
`storage` is bytes at any URI, `audio` file → windows, `encoders` CLAP, `memory` the ways across the gap between audio
and text, `generation` how the LLM writes, `scoring` metrics of answers, `model` what puts them together, `training`
one step of it, `soundworld` the embedded world. A room's own text says what is public in it and who may import it.
"""

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
