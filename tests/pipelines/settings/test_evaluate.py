"""The grid's cells, and what is refused."""

from __future__ import annotations

import pytest

from mats_core.errors import SettingsError
from pipelines.settings.evaluate import EvaluateSettings, cells


def test_every_combination_is_a_cell_in_order() -> None:
    settings = EvaluateSettings(grid=["santa.mix=0,0.3"], axes=["bridge=none,santa", "beams=2"])
    found = cells(settings)
    assert [cell.name for cell in found] == [
        f"santa.mix={mix},bridge={way},beams=2" for mix in ("0", "0.3") for way in ("none", "santa")
    ]
    assert found[3].changes == {"santa_mix": 0.3, "bridge": "santa", "beams": 2}
    assert found[3].values == {"santa.mix": "0.3", "bridge": "santa", "beams": "2"}


def test_without_a_grid_there_is_one_cell() -> None:
    (cell,) = cells(EvaluateSettings())
    assert (cell.name, cell.changes) == ("run", {})


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("santa.mox=1", '"santa.mox=1" is not an axis with values; give NAME=VALUE,VALUE with NAME one of santa.mix'),
        ("santa.mix", '"santa.mix" is not an axis with values; give NAME=VALUE'),
        ("santa.mix=", '"santa.mix=" is not an axis with values; give NAME=VALUE'),
        ("santa.mix=2", 'grid: santa_mix: "2" is too large; give a number of at most 1'),
        ("santa.neighbors=many", 'grid: santa_neighbors: "many" is no whole number'),
        ("bridge=ferry", '"ferry" is not a bridge; choose of santa, none, mean-shift'),
        ("beams=1 beams=2", "beams comes twice"),
        ("santa.mix=" + ",".join(str(i / 300) for i in range(201)), "201 cells, of which at most 200 are allowed"),
    ],
)
def test_a_wrong_grid_says_what_is_wrong(axis: str, said: str) -> None:
    with pytest.raises(SettingsError) as told:
        cells(EvaluateSettings(grid=[axis]))
    assert said in str(told.value)


def test_roots_for_all_and_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EvaluateSettings(data=["/all", "esc50=s3://bucket/esc"])
    assert settings.roots(["esc50", "gtzan"]) == {"esc50": "s3://bucket/esc", "gtzan": "/all"}
    monkeypatch.setenv("MATS_BENCHMARKS", "/there")
    assert EvaluateSettings().roots(["gtzan"]) == {"gtzan": "/there"}
    assert EvaluateSettings(data=["/a/b=c"]).roots(["gtzan"]) == {"gtzan": "/a/b=c"}
    with pytest.raises(SettingsError, match="NAME one of gtzan"):
        EvaluateSettings(data=["esc=/x"]).roots(["gtzan"])


@pytest.mark.parametrize("value", ["", " ", "gtzan=", "gtzan= "])
def test_an_empty_root_is_not_the_root_folder(value: str) -> None:
    with pytest.raises(SettingsError, match="neither of them empty"):
        EvaluateSettings(data=[value]).roots(["gtzan"])


def test_names_with_commas() -> None:
    assert EvaluateSettings(benchmarks="a, b,,a").names() == ["a", "b"]
    with pytest.raises(SettingsError, match="--list shows them"):
        EvaluateSettings(benchmarks=" ,").names()
