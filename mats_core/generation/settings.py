"""How the LLM writes, as settings. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mats_core.errors import SettingsError, checked


class DecodingSettings(BaseModel):
    """How the LLM writes an answer. Hugging Face's names for beams and n-grams are taken as well."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

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
            why = f"{chosen.min_length} is more than an answer can have, {longest}: max_new_tokens and the BOS"
            raise SettingsError("min_length", why, f"choose at most {longest}, or a larger max_new_tokens")
        return chosen
