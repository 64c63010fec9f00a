"""What the settings of all jobs are made of: kinds of values, paths for the workers of a cluster, readable errors.

A field's description is its documentation and its `--help` text. Wrong values raise SettingsError (exit code 2) before
any work starts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mats_core.errors import ERROR_CODES, TO_BE_GIVEN, SettingsError, field_error
from mats_core.model.config import Dtype, LlmDtype
from mats_core.storage.uris import is_file_url, names_secret, redacted, scheme, uri_text


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f'"{name}" is no device; choose auto, cpu, cuda, cuda:0, …')
    return name


def _error_code(name: str) -> str:
    if name not in ERROR_CODES:
        raise ValueError(f'"{name}" is no error code; choose {", ".join(ERROR_CODES)}')
    return name


Device = Annotated[str, AfterValidator(_device)]
ErrorCode = Annotated[str, AfterValidator(_error_code)]
Count = Annotated[int | None, Field(gt=0)]
"""How many; None where the job chooses."""
Address = Annotated[
    str | None, Field(description="Join this Ray cluster (auto, host:port, ray://…); default: a Ray of its own.")
]
LLM_DTYPE = (
    "What the LLM is kept in: auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16, float16 (Vicuna's own), "
    "or int8, int4 (the extra lowbit; int4 on a GPU)."
)
ENCODER_DTYPE = "The encoder's number type: float32, bfloat16, float16; spectrograms are exact in each."
MAPPER_DTYPE = "The mapper's number type: float32, bfloat16, float16."
ChosenLlmDtype = Annotated[LlmDtype, Field(description=LLM_DTYPE)]
EncoderDtype = Annotated[Dtype, Field(description=ENCODER_DTYPE)]
MapperDtype = Annotated[Dtype, Field(description=MAPPER_DTYPE)]
Overwrite = Annotated[bool, Field(description="Start anew: remove what OUTPUT holds.")]
OVERWRITE = "Replace what is at the page's place, also where it is no page of MATS."
Several = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
"""A list that YAML may give as one value."""
ALLOW_PARTS = "Place (folder or URL) outside the model directory that a part named in its mats.json may lie at."
AllowParts = Annotated[list[str], Several, Field(description=ALLOW_PARTS)]


def anchored(uri: str, only_there: bool = False) -> str:
    """A relative local path from the root; other URIs as they are, and with `only_there` names of nothing here too.

    For the workers of a cluster that is joined: they stand in another folder than whoever gave the path.
    """
    if scheme(uri) or is_file_url(uri) or (only_there and not os.path.exists(uri)):
        return uri
    return os.path.abspath(uri)


def without_paths(value: Any) -> Any:
    """`value` with the text of every `pathlib.Path` in it: a place may be given as either."""
    if isinstance(value, os.PathLike):
        return uri_text(value)
    if isinstance(value, dict):
        return {name: without_paths(each) for name, each in value.items()}
    return [without_paths(each) for each in value] if isinstance(value, list) else value


class Settings(BaseModel):
    """Settings of a job: a name that is no setting is an error. Where a cluster is joined (`address`), the settings
    named in PATHS are anchored, and of those in MODELS what is a path. GROUPS: a heading of `--help` → what stands
    below it, in this order."""

    model_config = ConfigDict(extra="forbid")
    PATHS: ClassVar[tuple[str, ...]] = ()
    MODELS: ClassVar[tuple[str, ...]] = ()
    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, values: Any) -> Any:
        return without_paths(values)

    @model_validator(mode="after")
    def _anchor_places(self) -> Settings:
        if getattr(self, "address", None) is not None:
            for name in (*self.PATHS, *self.MODELS):
                given, only_there = getattr(self, name), name in self.MODELS
                several = [anchored(each, only_there) for each in ([given] if isinstance(given, str) else given)]
                setattr(self, name, several[0] if isinstance(given, str) else several)
        return self


class NumberTypes(Settings):
    """What the parts of a model are kept in."""

    llm_dtype: ChosenLlmDtype = "auto"
    mapper_dtype: MapperDtype = "float32"
    encoder_dtype: EncoderDtype = "float32"


Model = TypeVar("Model", bound=BaseModel)


def build(kind: type[Model], values: Mapping[str, Any]) -> Model:
    """Settings of `kind` from plain values; raises SettingsError naming every bad setting. What may be a secret is
    not shown: the value of a setting that there is not, or that is called like one. What a template left to be given
    is no value, of whatever type the setting is."""
    if unfilled := list(_unfilled(values)):
        name, *others = unfilled
        more = f", and so {'is' if len(others) == 1 else 'are'} {', '.join(others)}" if others else ""
        raise SettingsError(name, f"is still to be filled in ({TO_BE_GIVEN}){more}", "put a value there")
    try:
        return kind(**values)
    except ValidationError as error:
        raise field_error(kind, error, shown=_shown, all_of_them=True) from None


def _unfilled(value: Any, name: str = "") -> Iterator[str]:
    """Names of the settings in nested values that hold what a template puts there to be replaced."""
    if isinstance(value, (Mapping, list)):
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in inner:
            yield from _unfilled(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, str) and value.strip() == TO_BE_GIVEN:
        yield name


def _shown(name: str, value: Any) -> str:
    """A wrong value as a message may hold it."""
    if names_secret(name):
        return "the value (which is not shown)"
    if isinstance(value, dict):
        return f"a mapping of {', '.join(str(key) for key in value) or 'nothing'}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_shown(name, each) for each in value)}]"
    if isinstance(value, str):
        return f'"{redacted(value)}"'
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
