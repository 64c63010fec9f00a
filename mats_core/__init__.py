"""The model: it hears through text, and works without Ray, in a notebook too. Heavy imports wait until they are needed.

    from mats_core import load_model

    model = load_model("builtin")
    print(model.answer("street.wav"))
    print(model.answer(["a.wav", "https://example.org/b.mp3", open("c.flac", "rb"), (samples, 44100)]))
    for answer in model.answers("street.wav", "QA", question="Is a dog barking?", segments=True):
        print(answer.start_s, answer.text, answer.segments)

    storage      bytes at any URI; the only place that knows file systems
    audio        file → waveform → windows
    encoders     CLAP: texts and sounds into one space
    memory       Santa and the other ways from a sound's vector to a text's
    generation   how the LLM writes: beam search
    scoring      metrics of answers
    confidence   how far an answer can be trusted: its scores, and the chance that it is right
    model        what puts them together: prompts, tokens, mapper, LLM; model directories
    training     one step, the loop around it, and the schedule
    soundworld   the embedded world of synthesised sounds, and the model shipped with it

`errors`, `device`, `pretrained` (directories of transformers, before they are loaded), `spread` (whether vectors tell
anything apart), `weights`, `batches` (one item that fails costs no other), `child` (programs of ours in processes
apart) and `variables` (of the environment) are for all rooms; `packages` is how the command `mats` finds all of them.
The names below are the Python API (`mats_core.load_model`); the modules that hold them may move. A room's own text says
what is public in it and who may import it. Nothing of pipelines and jobs is imported here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; below, each name is imported when it is first used
    from mats_core.audio.file import AudioError as AudioError
    from mats_core.encoders.clap import HfClapEncoder as HfClapEncoder
    from mats_core.encoders.load import load_encoder as load_encoder
    from mats_core.errors import SettingsError as SettingsError
    from mats_core.generation.settings import DecodingSettings as DecodingSettings
    from mats_core.memory.bridges import SantaSettings as SantaSettings
    from mats_core.memory.noise import inject_noise as inject_noise
    from mats_core.memory.santa import SantaMemory as SantaMemory
    from mats_core.model.asking import Answer as Answer
    from mats_core.model.asking import Reply as Reply
    from mats_core.model.asking import Request as Request
    from mats_core.model.asking import Segment as Segment
    from mats_core.model.config import AdapterConfig as AdapterConfig
    from mats_core.model.config import MapperConfig as MapperConfig
    from mats_core.model.config import ModelConfig as ModelConfig
    from mats_core.model.directory import check_model_dir as check_model_dir
    from mats_core.model.model import MatsModel as MatsModel
    from mats_core.model.model import load_model as load_model
    from mats_core.model.release import import_reference as import_reference

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
    "Segment": "mats_core.model.asking",
    "AudioError": "mats_core.audio.file",
    "SettingsError": "mats_core.errors",
    "inject_noise": "mats_core.memory.noise",
    "import_reference": "mats_core.model.release",
    "check_model_dir": "mats_core.model.directory",
}

__all__ = [*_WHERE, "__version__"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mats_core' has no attribute {name!r}")
