"""The settings of `mats train`: one YAML file, one pydantic model. No torch here, so that wrong settings are cheap."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mats_core import storage
from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig, PromptText, SantaSettings, TaskPrompt
from mats_core.model.prompts import WORDINGS
from mats_core.storage.fingerprint import unsealed
from mats_core.storage.uris import uri_text
from mats_core.training.schedule import TrainingSettings
from pipelines.settings.base import AllowParts
from pipelines.settings.text import NOISE

ESTIMATED = "estimated"

MODEL = "model"
"""Folder in OUTPUT that holds the model directory."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DataSet(_Settings):
    """One data set of the mixture: records and, elsewhere, what their captions are as embeddings."""

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$", description="Shown in logs, curves and the model card.")
    corpus: str | list[str] | None = Field(
        None, description="Files of records (JSON, JSONL, CSV, Parquet; any URL; globs)."
    )
    embeddings: str | None = Field(None, description="OUT of `mats embed-text` (default: the run's).")
    audio: str | None = Field(
        None,
        description="Instead of both: OUTPUT of `mats embed-audio` on a list with a column `output` and, if you like, "
        "`task`, `question` and `tag`. The clip's own embedding then stands where a caption's would.",
    )
    ratio: float = Field(1.0, ge=0, description="Share of the samples drawn, beside the other sets' ratios.")
    task: str | None = Field(None, description="Task of records that name none.")
    tag: PromptText | None = Field(None, description="Tag in the prompt, where a record has none of its own.")
    columns: dict[str, str] = Field(default_factory=dict, description="Our field: name of theirs.")
    validation: int | None = Field(None, ge=0, description="Records held out (default: the run's).")
    validation_corpus: str | list[str] | None = Field(
        None, description="Records to validate on instead; no set trains on their captions, labels apart."
    )

    @model_validator(mode="after")
    def _corpus_or_audio(self) -> DataSet:
        if (self.corpus is None) == (self.audio is None):
            raise ValueError(f"data set {self.name} names both a corpus and audio, or neither; name one of them")
        if self.audio is not None and (self.embeddings or self.validation_corpus or self.columns):
            problem = f"data set {self.name} has audio, whose embeddings bring their records with them"
            raise ValueError(f"{problem}; leave out embeddings, validation_corpus and columns")
        return self


class TrainSettings(_Settings):
    """A training run."""

    output: str = Field(description="Folder for the model, checkpoints and curves; run again to continue.")
    data: list[DataSet] = Field(min_length=1, description="The mixture.")
    embeddings: str | None = Field(None, description="OUT of `mats embed-text`, for all data sets that name no other.")

    model: str | None = Field(None, description="Continue from this model directory (stage 2).")
    llm: str | None = Field(None, description="A causal LLM of transformers: directory, URL or hub name.")
    allow_parts: AllowParts = Field(default_factory=list)
    encoder: str | None = Field(
        None, description="The CLAP whose embeddings these are (default: as these tell). It is named, not loaded."
    )
    memory: str | None = Field(None, description="Santa's memory the model is to use.")
    include: list[Literal["encoder", "llm", "memory"]] = Field(
        default_factory=list, description="Parts to copy into the model directory; others are named by URI."
    )
    weights: Literal["float32", "float16"] = Field("float32", description="Numbers the exported weights are stored in.")
    mapper: MapperConfig | None = Field(None, description="Sizes of the mapper (default: the reference's).")
    adapter: AdapterConfig | None = Field(default_factory=AdapterConfig, description="LoRA; null: none at all.")
    tasks: dict[str, TaskPrompt] | None = Field(None, description="Instruction and tag of each task at inference.")
    long_tag: PromptText = Field(
        "", description="In the prompt of records of several captions, and of long sounds at inference (default: none)."
    )
    wordings: str = Field("varied", description=f"Prompt wordings drawn in training: {', '.join(WORDINGS)}.")
    answer_style: Literal["gentle", "reference"] = "gentle"
    max_target_tokens: int = Field(150, ge=1)
    santa: SantaSettings | None = Field(None, description="Santa at inference (default: noise as in training).")
    decoding: DecodingSettings = Field(default_factory=DecodingSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    workers: int | tuple[int, int] | None = Field(
        None, description="Training processes, or [fewest, most] to go on with what there is (default: one a GPU)."
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the frozen LLM.")
    fsdp: Literal["auto", "always", "never"] = Field(
        "auto", description="Spread the frozen LLM over the GPUs; auto: when it does not fit one."
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto", description="Compile the LLM's decoder layers, in the first steps; auto: on a GPU, not beside fsdp."
    )
    address: str | None = Field(None, description="Join this Ray cluster; default: a Ray of its own.")
    max_failures: int = Field(8, ge=0, description="Worker failures survived before the run gives up.")

    checkpoint_every: int = Field(500, ge=1, description="Steps (default: 500, in short runs a tenth of all).")
    keep_checkpoints: int = Field(2, ge=1, description="The last ones; the best by validation loss is kept besides.")
    export: Literal["last", "best"] = Field("last", description="Which checkpoint becomes the model.")
    validate_every: int = Field(1000, ge=1, description="Steps (default: 1000, in short runs a fifth of all).")
    validation: int = Field(
        256, ge=0, description="Records held out a data set, by caption unless its captions are labels; 0: none."
    )
    sample_answers: int = Field(
        4, ge=0, description="Held-out records answered in the log at every validation, the next ones each time."
    )
    log_every: int = Field(10, ge=1, description="Steps a point of the curves is the mean of.")
    loggers: list[Literal["wandb", "mlflow"]] = Field(
        default_factory=list, description="Besides TensorBoard, which always is."
    )
    project: str = Field("mats", description="Project (wandb) or experiment (mlflow).")
    max_error_rate: float = Field(0.01, ge=0, le=1, description="Share of records that may be unusable.")
    data_cache: str | None = Field(
        None, description="Local folder for the packed data (default: in OUTPUT, or the cache where OUTPUT is a URL)."
    )
    overwrite: bool = Field(False, description="Start anew: remove what an earlier run left in OUTPUT.")

    @model_validator(mode="before")
    @classmethod
    def _noise_as_estimated(cls, values: Any) -> Any:
        """`training.noise_variance: estimated` is what `mats noise` has written beside the embeddings."""
        training = values.get("training") if isinstance(values, dict) else None
        if isinstance(training, dict) and training.get("noise_variance") == ESTIMATED:
            return {**values, "training": {**training, "noise_variance": _estimated_noise(values.get("embeddings"))}}
        return values

    @field_validator("workers")
    @classmethod
    def _some_workers(cls, value: Any) -> Any:
        low, high = value if isinstance(value, tuple) else (value or 1, value or 1)
        if not 1 <= low <= high:
            raise ValueError("these are no numbers of workers; give at least 1, or [fewest, most]")
        return value

    @field_validator("wordings")
    @classmethod
    def _known_wordings(cls, value: str) -> str:
        if value not in WORDINGS:
            raise ValueError(f'"{value}" is no set of wordings; choose {", ".join(WORDINGS)}')
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSettings:
        names = [each.name for each in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data set {', '.join(twice)} is there twice; give each a name of its own")
        if not any(each.ratio > 0 for each in self.data):
            raise ValueError("no data set has a ratio above 0; give one to at least one of them")
        if (self.model is None) == (self.llm is None):
            raise ValueError("llm and model are both given, or neither; name llm (a new model) or model (to continue)")
        if self.model is not None:
            new = [n for n in ("encoder", "mapper", "adapter", "tasks") if n in self.model_fields_set]
            if new:
                raise ValueError(
                    f"the model that is continued has its own {', '.join(new)}; leave out what is given here"
                )
        if self.training.train == "mapper+adapter" and self.model is None and self.adapter is None:
            raise ValueError("there is no adapter to train; say training.train: mapper")
        for each in self.data:
            if each.corpus is not None and not (each.embeddings or self.embeddings):
                problem = f"data set {each.name} has no embeddings of its captions"
                raise ValueError(f"{problem}; name what mats embed-text has made of its corpus")
        return self

    @model_validator(mode="after")
    def _follow_steps(self) -> TrainSettings:
        """What is not given follows `training.steps`, in the proportions of the reference's run or more often."""
        given, steps = set(self.model_fields_set), self.training.steps
        if "warmup_steps" not in self.training.model_fields_set:
            self.training = self.training.model_copy()
            self.training.warmup_steps = min(self.training.warmup_steps, steps // 30)
            self.training.model_fields_set.discard("warmup_steps")  # it is still not given: see `as_begun`
        for name, most, share in (("checkpoint_every", 500, 10), ("validate_every", 1000, 5)):
            if name not in given:
                setattr(self, name, min(most, max(1, steps // share)))
        self.model_fields_set.intersection_update(given)
        return self

    @property
    def most_workers(self) -> int | None:
        """The largest number of workers asked for; None: one a GPU."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers


def _estimated_noise(embeddings: Any) -> float:
    """Raises ValueError where nothing has been estimated."""
    if not isinstance(embeddings, (str, os.PathLike)):
        raise ValueError(f"noise_variance is {ESTIMATED} but no embeddings are named; name the run's embeddings")
    uri = storage.join(uri_text(embeddings), NOISE)
    remedy = f"run mats noise {storage.public_uri(uri_text(embeddings))} --pairs PAIRS first"
    try:
        return float(unsealed(json.loads(storage.read_bytes(uri)))["variance"])
    except storage.StorageError:
        raise ValueError(f"noise_variance is {ESTIMATED} and there is no {storage.public_uri(uri)}; {remedy}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{storage.public_uri(uri)} is not what mats noise wrote; {remedy}") from None


def as_begun(settings: TrainSettings, begun: dict[str, Any]) -> tuple[TrainSettings, list[str]]:
    """The settings of a run that goes on, and what of them is not as it would be in a new one, a sentence each.

    What is not given is as the run was begun with, whatever is the default today. begun: `identity` of the first run.
    """
    notes: list[str] = []
    return _as_begun(settings, begun, "", notes), notes


def _as_begun(settings: Any, begun: dict[str, Any], place: str, notes: list[str]) -> Any:
    update: dict[str, Any] = {}
    for name, then in begun.items():
        now = getattr(settings, name, None)
        if isinstance(now, BaseModel) and isinstance(then, dict):
            update[name] = _as_begun(now, then, f"{place}{name}.", notes)
            continue
        plain = all(value is None or isinstance(value, (str, int, float)) for value in (now, then))
        if plain and now != then and name in type(settings).model_fields and name not in settings.model_fields_set:
            notes.append(f"{place}{name} is {then}, as this run was begun; a new one would have {now}")
            update[name] = then
    copy = settings.model_copy(update=update)
    copy.model_fields_set.intersection_update(settings.model_fields_set)
    return copy


# What may differ between a run and its continuation, because it does not change what is learned.
_MAY_DIFFER = """
output allow_parts address workers device fsdp compile max_failures max_error_rate data_cache overwrite checkpoint_every
keep_checkpoints
export include weights validate_every sample_answers log_every loggers project
"""


def identity(settings: TrainSettings) -> dict[str, Any]:
    """Everything that decides what is learned, for comparison with an earlier run's."""
    values = settings.model_dump(mode="json", exclude=set(_MAY_DIFFER.split()))
    if values["training"]["noise"] == "gaussian":
        del values["training"]["noise"]  # as in runs that were begun before there was a choice
    return {"job": "train", **values}
