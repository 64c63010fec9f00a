"""Settings of `mats search`; apart from the pipeline, so that `--help` needs no pyarrow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.settings.base import Address, AllowParts, Device, Settings

GROUPS: dict[str, tuple[str, ...]] = {
    "What to find": ("like", "where", "novel", "reference", "most"),
    "How": ("by", "bridge", "answers", "model", "allow_parts", "device", "address"),
    "Where to": ("out", "page", "overwrite", "json_"),
}


class SearchSettings(Settings):
    """A run with embeddings → windows of its sounds."""

    GROUPS = GROUPS
    PATHS = ("run",)
    MODELS = ("model", "allow_parts")
    run: str = Field(description="OUTPUT of `mats embed-audio`, or of `mats caption --with-embedding`.")
    query: str | None = Field(None, description="What to find, in words.")
    like: str | None = Field(
        None, description="Find what sounds like this: FILE, or FILE@SECONDS for the window there; with QUERY: both."
    )
    where: str | None = Field(
        None, description='Only where this holds of a row: SQL over the run\'s columns, as "duration_s > 5".'
    )
    novel: bool = Field(False, description="The windows that are furthest from those of all other files.")
    reference: str | None = Field(None, description="With --novel: furthest from the windows of this run instead.")
    most: int = Field(20, ge=1, le=100_000, description="How many windows.")
    by: Literal["both", "sound", "words"] = Field(
        "both", description="Search sounds, captions as text, or both, and join the two rankings."
    )
    bridge: Literal["echo", "mean-shift", "none"] = Field(
        "echo", description="Way from words to sounds: echo, mean-shift, none."
    )
    answers: str | None = Field(
        None, description="OUTPUT of `mats caption` over the same embeddings: its answers are the captions."
    )
    model: str | None = Field(None, description="Model whose encoder embeds the query (default: the run's).")
    allow_parts: AllowParts = Field(default_factory=list)
    device: Device = Field("auto", description="auto, cpu, cuda.")
    address: Address = None
    out: str | None = Field(None, description="Write the windows to this file: .parquet, .csv or .jsonl.")
    page: str | None = Field(None, description="Write a page with players to this file.")
    overwrite: bool = Field(False, description="Replace whatever is at the places of --out and --page.")
    json_: bool = Field(False, description="One JSON object a window.")

    @model_validator(mode="after")
    def _asks_something(self) -> SearchSettings:
        asked = bool((self.query or "").strip()) or self.like is not None
        if self.novel and asked:
            raise SettingsError("novel", "it asks for no words and no sound", "leave out QUERY and --like, or --novel")
        if not self.novel and not asked:
            if not storage.is_dir(self.run):  # words, given where the run belongs
                problem = f"{storage.public_uri(self.run)} is no folder that exists"
                raise SettingsError("run", problem, 'give a run, and behind it what to find: mats search RUN "rain"')
            raise SettingsError("query", "nothing is asked", "give words, --like with a sound, or both, or --novel")
        if self.reference is not None and not self.novel:
            raise SettingsError("reference", "it is for --novel", "add --novel, or leave it out")
        return self

    def told(self) -> dict[str, Any]:
        """What was asked, for a page."""
        names = ("query", "like", "where", "novel", "reference", "by")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}
