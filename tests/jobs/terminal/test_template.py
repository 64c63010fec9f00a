"""The commented file of settings: every key, and uncommented it says what is meant where nothing is said."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from jobs.terminal.template import commented, template
from mats_core.errors import SettingsError
from pipelines.evaluate.datasets import OPTIONS, EvaluationSet
from pipelines.settings.base import build
from pipelines.settings.train import TrainSettings

GIVEN = {"output": "out", "llm": "builtin", "encoder": "builtin", "embeddings": "e"}


def uncommented(text: str) -> Any:
    return yaml.safe_load("\n".join(line.removeprefix("#") for line in text.splitlines() if line[:2] != "##"))


@pytest.mark.parametrize("kind", [TrainSettings, EvaluationSet])
def test_every_setting_is_there_with_its_default(kind: type[BaseModel]) -> None:
    text = template(kind)
    values = uncommented(text)
    assert list(values) == [name.rstrip("_") for name in kind.model_fields]
    needed = {name for name, field in kind.model_fields.items() if field.is_required()}
    assert set(yaml.safe_load(text)) == needed
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if not field.is_required() and not isinstance(default, BaseModel) and not isinstance(values[name], dict):
            assert values[name] == default, name


def test_what_is_uncommented_and_filled_in_is_a_run() -> None:
    values = uncommented(template(TrainSettings))
    assert set(values["training"]) == set(TrainSettings.model_fields["training"].default_factory().model_fields)
    (data,) = values["data"]
    data |= {"name": "a", "corpus": "c"}
    settings = TrainSettings(**values | GIVEN)
    usual = TrainSettings(**GIVEN, data=[{"name": "a", "corpus": "c"}])
    assert settings.training == usual.training
    assert settings.decoding == usual.decoding
    assert "##     Instead of both: OUTPUT of" in template(TrainSettings)


def test_what_is_not_yet_filled_in_is_named() -> None:
    """Whatever its type: a text would pass for a value."""
    with pytest.raises(SettingsError, match=r"^output: is still to be filled in \(TO BE GIVEN\); put a value there$"):
        build(TrainSettings, {**GIVEN, "data": [{"name": "a", "corpus": "c"}], "output": "TO BE GIVEN"})
    given = {"data": [{"name": "a", "corpus": ["TO BE GIVEN"]}], "output": "TO BE GIVEN"}
    with pytest.raises(SettingsError, match=r"^output: is still .*, and so is data\.0\.corpus\.0; put"):
        build(TrainSettings, {**GIVEN, **given})
    left = yaml.safe_load(template(EvaluationSet))
    with pytest.raises(SettingsError, match=r"^name: is still to be .*, and so are title, "):
        build(EvaluationSet, left)


@pytest.mark.parametrize("kind", OPTIONS.values())
def test_what_goes_below_another_setting_is_all_behind_a_mark(kind: type[BaseModel]) -> None:
    text = commented(kind)
    assert all(line.startswith("#") for line in text.splitlines())
    assert list(uncommented("options:\n" + text)["options"]) == list(kind.model_fields)


class Item(BaseModel):
    """One of a list."""

    note: str | None = None
    name: str


class Choices(BaseModel):
    """Settings that hold one of some values."""

    probe: int | Literal["all"] = Field(1, description="clusters searched")
    never: Literal[False] = Field(False, description="it is never so")
    kind: Literal["a", "b"] = Field("a", description="It is so.")
    judge: Literal["", "one"] = Field("", description="Whose judge.")
    plain: Literal["a", "b"] = "a"
    items: list[Item]
    more: list[Item] = []


def test_choices_are_told_in_whole_sentences_and_a_dash_stands_before_a_setting() -> None:
    text = template(Choices)
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("##")] == [
        "clusters searched; or all", "it is never so; only false", "It is so. One of a, b.",
        'Whose judge. One of "", one.', "One of a, b.",
    ]  # fmt: skip
    assert not any(line.strip("# ") == "-" for line in text.splitlines())
    item = {"name": "TO BE GIVEN", "note": None}
    assert uncommented(text)["items"] == uncommented(text)["more"] == [item]
    assert yaml.safe_load(text) == {"items": [{"name": "TO BE GIVEN"}]}
