"""All settings of a model: what `mats.json` holds. No torch here, so that checking a model is cheap."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mats_core.errors import got_allowed
from mats_core.model.prompts import PROMPT_TEMPLATE, TASKS, default_tasks


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class MapperConfig(_Settings):
    """Sizes of the mapper. Defaults are the released model's."""

    kind: Literal["transformer", "mlp"] = "transformer"
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
    def _heads_divide_width(self) -> MapperConfig:
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class AdapterConfig(_Settings):
    """LoRA on the LLM, through PEFT."""

    rank: int = Field(8, ge=1, le=10_000)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    target_modules: list[str] | None = Field(None, description="null: PEFT's default for the LLM's type")


class TaskPrompt(_Settings):
    """What is asked for a task when the user says nothing else. QA asks the question itself."""

    instruction: str = ""
    tag: str = ""


class DecodingSettings(_Settings):
    """How the LLM writes. Hugging Face's names for beams and n-grams are taken as well."""

    beams: int = Field(4, ge=1, le=64, validation_alias=AliasChoices("beams", "num_beams"))
    max_new_tokens: int = Field(200, ge=1)
    min_length: int = Field(1, ge=0, description="counts the BOS, as the reference does: 1 asks for nothing")
    no_repeat_ngram: int = Field(2, ge=0, validation_alias=AliasChoices("no_repeat_ngram", "no_repeat_ngram_size"))
    repetition_penalty: float = Field(2.0, gt=0)
    length_penalty: float = 1.0
    do_sample: Literal[False] = Field(False, exclude=True, description="an answer is never random")
    temperature: float = Field(1.0, exclude=True, description="has no effect, since nothing is sampled")

    def updated(self, changes: DecodingSettings | dict[str, Any] | None) -> DecodingSettings:
        """These settings with `changes` over them: a whole object replaces, a dict replaces what it names.

        Raises SettingsError where the result asks for an answer longer than the longest.
        """
        if changes is None or isinstance(changes, DecodingSettings):
            chosen = changes or self
        else:
            given = checked(DecodingSettings, changes, "decoding")
            chosen = self.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})
        longest = chosen.max_new_tokens + 1  # min_length counts the BOS
        if chosen.min_length > longest:
            allowed = f"at most {longest}: max_new_tokens, {chosen.max_new_tokens}, and the BOS"
            raise got_allowed("min_length", chosen.min_length, allowed)
        return chosen


class SantaSettings(_Settings):
    """How an audio embedding is moved towards the memory's text embeddings."""

    neighbors: int = Field(32, ge=1)
    scale: float = Field(10.0, ge=0, description="factor on the cosines before the softmax")
    mix: float = Field(0.3, ge=0, le=1, description="share of the memory in the result; 0 turns Santa off")
    probe: int | Literal["all"] = Field(1, description="clusters searched for each embedding")
    noise_variance: float = Field(0.015, ge=0)
    seed: int = Field(0, ge=0, description="with the memory row, the key of that row's noise")

    @model_validator(mode="after")
    def _probe_positive(self) -> SantaSettings:
        if self.probe != "all" and self.probe < 1:
            raise ValueError('probe must be at least 1, or "all"')
        return self


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
        default_factory=lambda: {name: TaskPrompt(**values) for name, values in default_tasks().items()}
    )
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
            raise ValueError(f"unknown tasks {unknown}; known: {', '.join(TASKS)}")
        if self.prompt_template.count("<SpeechHere>") != 1:
            raise ValueError("prompt_template must contain <SpeechHere> exactly once")
        return self


def checked(kind: type[Any], values: Any, where: str) -> Any:
    """Build settings of `kind`, or raise a SettingsError that names the first wrong field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([where, *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            fields = ", ".join(kind.model_fields)
            raise got_allowed(name, first["input"], f"no such setting; there are: {fields}") from None
        given = "nothing" if first["type"] == "missing" else first["input"]
        raise got_allowed(name, given, first["msg"]) from None


def checked_field(kind: type[BaseModel], field: str, value: Any, name: str) -> Any:
    """`value` as that field of `kind` would hold it, or a SettingsError that calls it `name`."""
    found = kind.model_fields[field]
    annotation: Any = found.annotation
    for rule in found.metadata:  # the bounds; an alias is of no use outside its model
        annotation = Annotated[annotation, rule]
    rules: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    try:
        return rules.validate_python(value)
    except ValidationError as error:
        shown = value if value is None or isinstance(value, (int, float)) else repr(value).strip("'\"")[:80]
        raise got_allowed(name, shown, error.errors()[0]["msg"]) from None
