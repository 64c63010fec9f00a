"""The model: it hears through text, and works without Ray, in a notebook too. Heavy imports wait until they are needed.

    from mats_core import load_model

    model = load_model("builtin")
    print(model.answer("street.wav"))
    for answer in model.answers("street.wav", "QA", question="Is a dog barking?", segments=True):
        print(answer.start_s, answer.text, answer.segments)

    storage      bytes at any URI; the only place that knows file systems
    audio        file → waveform → windows
    encoders     CLAP: texts and sounds into one space
    memory       Santa and the other ways from a sound's vector to a text's
    generation   how the LLM writes: beam search
    scoring      metrics of answers
    model        what puts them together: prompts, tokens, mapper, LLM; model directories
    training     one step, the loop around it, and the schedule
    soundworld   the embedded world of synthesised sounds, and the model shipped with it

`errors`, `device` and `weights` are for all rooms; `packages` is how the command `mats` finds all of them. The names
below are the Python API (`mats_core.load_model`); the modules that hold them may move. A room's own text says what is
public in it and who may import it. Nothing of pipelines and jobs is imported here.
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
