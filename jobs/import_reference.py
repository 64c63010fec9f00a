"""`mats import-reference`: the authors' checkpoint, their LLM and their CLAP → a model directory."""

from __future__ import annotations

import typer
from pydantic import BaseModel, ConfigDict, Field

from jobs.terminal.options import missing, settings_command

app = typer.Typer()


class ImportSettings(BaseModel):
    """What to import, and what the checkpoint's tensors do not tell."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str = Field("", description="The authors' .pth (path or URL), like checkpoint_29.pth.")
    llm: str = Field("", description="The LLM it was trained with: directory, s3:// URL or hub name.")
    out: str = Field("", description="Model directory to write.")
    clap: str | None = Field(
        None,
        description="CLAP_weights_2023.pth, with ?tokenizer=DIRECTORY where GPT-2's tokenizer lies; without it the "
        "model answers embeddings only.",
    )
    memory: str | None = Field(
        None, description="Santa's memory, made by `mats build-memory` with the same CLAP; without it Santa is off."
    )
    trust_remote_code: bool = Field(False, description="Run Python files that come with the LLM.")
    lora_alpha: float | None = Field(None, gt=0, description="LoRA's alpha.")
    lora_dropout: float | None = Field(None, ge=0, lt=1, description="LoRA's dropout in training.")
    heads: int | None = Field(None, ge=1, description="Attention heads of the mapper.")
    noise_variance: float | None = Field(None, ge=0, description="Variance of the noise it was trained with.")
    max_target_tokens: int | None = Field(None, ge=1, description="Longest answer in training.")
    neighbors: int | None = Field(None, ge=1, description="Santa's neighbours.")
    scale: float | None = Field(None, ge=0, description="Santa's factor before the softmax.")
    mix: float | None = Field(None, ge=0, le=1, description="Santa's share of the memory.")
    beams: int | None = Field(None, ge=1, description="Beams.")
    max_new_tokens: int | None = Field(None, ge=1, description="Longest answer.")
    min_length: int | None = Field(None, ge=0, description="Shortest answer.")
    no_repeat_ngram: int | None = Field(None, ge=0, description="No n-gram of this length twice.")
    repetition_penalty: float | None = Field(None, gt=0, description="Penalty on tokens already written.")
    length_penalty: float | None = Field(None, description="Exponent of the length in a beam's score.")


PARTS = ("checkpoint", "llm", "out", "clap", "memory", "trust_remote_code")


@settings_command(app, "import-reference", ImportSettings, ())
def import_reference(settings: ImportSettings) -> int:
    """Make a model directory of the authors' checkpoint, their LLM and Microsoft's CLAP."""
    for name in ("checkpoint", "llm", "out"):
        if not getattr(settings, name):
            raise missing(name, ImportSettings.model_fields[name])
    from mats_core.storage.fetch import local_file

    local_file(settings.checkpoint, "checkpoint")  # a wrong name is told before torch is there
    from mats_core.model.release import import_with_report

    given = settings.model_dump(exclude_none=True, exclude=set(PARTS))
    parts = {name: getattr(settings, name) for name in PARTS}
    report = import_with_report(**parts, config=given)
    typer.echo("\n".join(report.lines()))
    typer.echo(f"wrote {report.directory}")
    return 0
