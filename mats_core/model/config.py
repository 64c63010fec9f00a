"""All settings of a model: what `mats.json` holds, those of generation and Santa with them. No torch here."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mats_core.generation.settings import DecodingSettings as DecodingSettings
from mats_core.memory.bridges import SantaSettings as SantaSettings
from mats_core.model.prompts import INSTRUCTIONS, PROMPT_TEMPLATE, SPEECH, TASKS

LlmDtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
"""What an LLM's weights are kept in. With int8 and int4 it computes in the device's own type, as with auto: bfloat16 on
a GPU, float32 on a CPU."""
Dtype = Literal["float32", "bfloat16", "float16"]
PACKED = {"int8": 8, "int4": 4}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class MapperConfig(_Settings):
    """Sizes of the mapper. Defaults are the released model's."""

    kind: Literal["transformer", "mlp", "reference_mlp", "simple_mlp"] = Field(
        "transformer",
        description="the release's: transformer, reference_mlp (it says mlp), simple_mlp; ours: mlp",
    )
    vectors: int = Field(40, ge=1, le=10_000, description="vectors the LLM reads in place of the sound")
    clip_tokens: int = Field(40, ge=1, le=10_000, description="tokens the embedding is unfolded into")
    width: int = Field(1024, ge=1, le=100_000)
    layers: int = Field(8, ge=0, le=1000)
    heads: int = Field(8, ge=1, le=10_000)
    mlp_ratio: float = Field(2.0, gt=0, le=1000)

    @property
    def mlp_width(self) -> int:
        """width · mlp_ratio, cut to a whole number; one that a quotient's rounding just misses is meant."""
        product = self.width * self.mlp_ratio
        return round(product) if math.isclose(product, round(product), rel_tol=1e-12) else int(product)

    @model_validator(mode="after")
    def _sizes_fit(self) -> MapperConfig:
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; choose other sizes")
        if self.kind == "simple_mlp" and self.vectors != 1:
            raise ValueError(f"simple_mlp makes one vector, not {self.vectors}; say vectors: 1, or choose another kind")
        return self


class AdapterConfig(_Settings):
    """LoRA on the LLM, through PEFT."""

    rank: int = Field(8, ge=1, le=10_000)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    target_modules: list[str] | None = Field(None, description="null: PEFT's default for the LLM's type")


def _without_place(text: str) -> str:
    if SPEECH in text:
        raise ValueError(f"it holds {SPEECH}, which stands for the sound; leave it out")
    return text


PromptText = Annotated[str, AfterValidator(_without_place)]
"""A part of a prompt. The sound's place is the template's."""


class TaskPrompt(_Settings):
    """What is asked for a task when the user says nothing else. QA asks the question itself."""

    instruction: PromptText = ""
    tag: PromptText = ""


class Part(_Settings):
    """An encoder, LLM or memory: where it is (relative to the model directory, or absolute), and which."""

    uri: str
    fingerprint: str


class ModelConfig(_Settings):
    """Everything about a model but its weights."""

    format: Literal[1] = 1
    embedding_dim: int = Field(ge=1, le=1_000_000)
    hidden_size: int = Field(ge=1, le=1_000_000, description="width of the LLM")
    mapper: MapperConfig = Field(default_factory=MapperConfig)
    adapter: AdapterConfig | None = Field(default_factory=AdapterConfig)
    prompt_template: str = PROMPT_TEMPLATE
    tasks: dict[str, TaskPrompt] = Field(
        default_factory=lambda: {task: TaskPrompt(instruction=text) for task, text in INSTRUCTIONS.items()}
    )
    long_tag: PromptText = Field("", description="in the prompt of a long sound, which is heard as a mean of windows")
    wordings: str = Field("varied", description="label of the prompt wordings it was trained with")
    max_target_tokens: int = Field(150, ge=1)
    noise_variance: float = Field(0.015, ge=0, description="of the noise it was trained with")
    pad_row: bool = Field(
        False, description="the reference adds [PAD] to the vocabulary: one logit near zero takes part in the loss"
    )
    answer_style: Literal["gentle", "reference"] = "gentle"
    encoder: Part | None = None
    llm: Part
    memory: Part | None = None
    santa: SantaSettings = Field(default_factory=SantaSettings)
    decoding: DecodingSettings = Field(default_factory=DecodingSettings)

    @model_validator(mode="after")
    def _known_tasks(self) -> ModelConfig:
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown:
            raise ValueError(f"there is no task {', '.join(unknown)}; choose from {', '.join(TASKS)}")
        if self.prompt_template.count("<SpeechHere>") != 1:
            raise ValueError("prompt_template does not hold <SpeechHere> exactly once; put it where the sound goes")
        return self
