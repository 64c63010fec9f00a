"""Settings from plain values, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

from mats_core.errors import SettingsError
from pipelines.settings.base import Device, ErrorCode, Settings, Several, anchored, build


class Inner(Settings):
    steps: int = 1


class Some(Settings):
    beams: int = Field(1, gt=0, le=10)
    share: float = Field(0.5, ge=0, lt=1)
    storage: Literal["float32", "int8"] = "int8"
    device: Device = "auto"
    again: Annotated[list[ErrorCode], Several] = Field(default_factory=list)
    names: list[str] = Field(["a"], min_length=1)
    columns: dict[str, str] = Field(default_factory=dict)
    on: bool = False
    api_key: int = 0
    inner: Inner = Inner()
    either: dict[str, list[str] | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Some:
        if self.on and self.beams > 1:
            raise ValueError("on does not go with several beams; give beams 1")
        return self


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"beams": 0}, "beams: 0 is too small; give a number greater than 0"),
        ({"beams": 11}, "beams: 11 is too large; give a number of at most 10"),
        ({"share": -0.5}, "share: -0.5 is too small; give a number of at least 0"),
        ({"share": 1}, "share: 1 is too large; give a number less than 1"),
        ({"beams": "many"}, 'beams: "many" is no whole number; give a whole number'),
        ({"beams": 1.5}, "beams: 1.5 is no whole number; give a whole number"),
        ({"beams": None}, "beams: null is no whole number; give a whole number"),
        (
            {"share": True, "beams": [1, "x"]},
            """beams: [1, "x"] is no whole number; give a whole number
share: true is too large; give a number less than 1""",
        ),
        ({"either": {"a": 1}}, "either.a: 1 is no list; give a list"),
        (
            {"inner": {"stop": 1, "steps": "x"}, "columns": 3},
            """columns: 3 is no mapping; give a mapping of names to values
inner.steps: "x" is no whole number; give a whole number
inner.stop: there is no such setting; choose one of steps""",
        ),
        ({"share": "half"}, 'share: "half" is no number; give a number'),
        ({"on": "perhaps"}, 'on: "perhaps" is neither true nor false; give true or false'),
        ({"storage": "float8"}, 'storage: "float8" is no choice; choose float32 or int8'),
        ({"device": "gpu"}, 'device: "gpu" is no device; choose auto, cpu, cuda, cuda:0, …'),
        ({"names": []}, "names: [] is too short; give at least 1"),
        ({"names": 3}, "names: 3 is no list; give a list"),
        ({"columns": "x"}, 'columns: "x" is no mapping; give a mapping of names to values'),
        ({"inner": {"steps": "x"}}, 'inner.steps: "x" is no whole number; give a whole number'),
        ({"inner": {"stop": 1}}, "inner.stop: there is no such setting; choose one of steps"),
        ({"inner": {"step": 1}}, "inner.step: there is no such setting; did you mean steps?"),
        ({"inner": "deep"}, 'inner: "deep" is no mapping; give a mapping of names to values'),
        ({"on": True, "beams": 2}, "settings: on does not go with several beams; give beams 1"),
        ({"api_key": "TOP"}, "api_key: the value (which is not shown) is no whole number; give a whole number"),
        ({"beams": "s3://me:TOP@host/a?token=TOP"}, 'beams: "s3://host/a" is no whole number; give a whole number'),
    ],
)
def test_a_wrong_value_is_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build(Some, given)
    assert str(caught.value) == said


def test_a_name_that_is_no_setting_tells_those_that_are() -> None:
    with pytest.raises(SettingsError) as caught:
        build(Some, {"colour": "TOP"})
    assert caught.value.problem == "there is no such setting"
    assert caught.value.remedy.startswith("choose one of beams, share, storage")


def test_a_missing_value_is_asked_for() -> None:
    class Needs(BaseModel):
        output: str

    with pytest.raises(SettingsError, match=r"^output: nothing is given; give a value$"):
        build(Needs, {})


def test_one_value_may_stand_for_a_list() -> None:
    assert build(Some, {"again": "timeout"}).again == ["timeout"]
    with pytest.raises(SettingsError, match=r'^again\.1: "tiredness" is no error code; choose not_found, '):
        build(Some, {"again": ["timeout", "tiredness"]})


def test_relative_paths_are_from_the_root_and_urls_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert anchored("out") == str(tmp_path / "out")
    assert anchored("model", only_there=True) == str(tmp_path / "model")
    for uri in ("s3://bucket/x", "hf:name", "/abs"):
        assert anchored(uri, only_there=True) == uri
