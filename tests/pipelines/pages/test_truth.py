"""Labels beside the truth of an archive: right, missed, wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import soundfile

from mats_core.errors import SettingsError
from pipelines.pages.report import write_report
from tests.pipelines.pages.made_up import RATE, Page, row, tone, write_run


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError("sounds were decoded")

    monkeypatch.setattr("pipelines.pages.report.add_media", decode)


@pytest.mark.processes
def test_labels_right_missed_and_wrong(tmp_path: Path) -> None:
    uri = str(tmp_path / "in" / "a b.wav")
    truth = [
        {"path": "a b.wav", "caption": "Rain, then a siren.", "labels": ["rain", "siren"], "minutes": []},
        {"path": "b.wav", "caption": "not this one", "labels": ["cat"], "minutes": []},
    ]
    output = write_run(tmp_path / "out", [row(0, uri, text="A dog barks while rain falls.")])
    result = write_report(output, str(tmp_path / "r.html"), truth)
    assert result.files[0]["parts"][0]["labels"] == [("rain", "right"), ("siren", "missed"), ("dog", "wrong")]
    scores = result.labels
    assert (scores["right"], scores["missed"], scores["wrong"], scores.f1) == (1, 1, 1, 0.5)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [len(page.all("li", kind)) for kind in ("right", "missed", "wrong")] == [1, 1, 1]
    assert "Rain, then a siren." in page.text


@pytest.mark.processes
def test_each_minute_of_a_scene_has_its_own_truth(tmp_path: Path) -> None:
    uri = str(tmp_path / "scene.wav")
    minutes = [
        {"start_s": 0.0, "end_s": 60.0, "caption": "Rain.", "labels": ["rain"]},
        {"start_s": 60.0, "end_s": 120.0, "caption": "A cat.", "labels": ["cat"]},
    ]
    truth = tmp_path / "truth.jsonl"
    whole = {"path": "scene.wav", "caption": "A scene.", "labels": ["rain", "cat"], "minutes": minutes}
    truth.write_text(json.dumps(whole) + "\n")
    rows = [
        row(1, uri, start_s=60.0, duration_s=60.0, decoded_s=60.0, text="A cat meows."),
        row(0, uri, duration_s=60.0, decoded_s=60.0, text="A cat meows."),
    ]
    result = write_report(write_run(tmp_path / "out", rows), str(tmp_path / "r.html"), str(truth))
    first, second = result.files[0]["parts"]
    assert first["labels"] == [("rain", "missed"), ("cat", "wrong")]
    assert (second["start_s"], second["truth"], second["labels"]) == (60.0, "A cat.", [("cat", "right")])


@pytest.mark.processes
def test_a_name_that_is_not_utf8_finds_its_file_and_its_truth(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "in")
    os.makedirs(folder)
    with open(os.path.join(folder, b"Ger\xe4usch.wav"), "wb") as file:
        soundfile.write(file, tone(440, 1.0), RATE, format="WAV")
    uri = f"file://{tmp_path}/in/Ger%E4usch.wav"
    truth = [{"path": "Ger%E4usch.wav", "caption": "A dog.", "labels": ["dog"], "minutes": []}]
    rows = [row(0, uri), row(1, str(tmp_path / "in" / "b.wav"))]
    result = write_report(write_run(tmp_path / "out", rows), str(tmp_path / "r.html"), truth)
    first, second = result.files
    assert (first["name"], second["name"]) == ("Ger%E4usch.wav", "b.wav")
    assert first["parts"][0]["labels"] == [("dog", "right")]
    assert result.previews == 1, "the second file is not there and is shown without picture"


@pytest.mark.usefixtures("undecoded")
def test_a_wrong_line_of_the_truth_is_told(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", [row(0, "one.wav")])
    truth = tmp_path / "truth.jsonl"
    good = {"path": "two.wav", "caption": None, "labels": [], "minutes": []}
    for line, wrong in (
        ('{"path": "one.wav", "labels": []}', "line 3, minutes: Field required"),
        ('{"labels": [], "minutes": []}', "line 3, path: Field required"),
        ('{"path": "one.wav", "minutes": []}', "line 3, labels: Field required"),
        ('{"path": "a", "labels": [], "minutes": [{"end_s": 1, "labels": []}]}', "line 3, minutes, 0, start_s: Field"),
        ("not json", "line 3: Invalid JSON: expected ident)"),
        ("[1]", "line 3: Input should be an object"),
    ):
        truth.write_text(f"{json.dumps(good)}\n\n{line}\n")
        with pytest.raises(SettingsError) as refused:
            write_report(output, str(tmp_path / "r.html"), str(truth))
        assert str(refused.value).startswith(f"truth: {truth} is not the truth.jsonl of an archive ({wrong}")
    with pytest.raises(SettingsError, match=r"truth\.minutes: nothing is given; give a value"):
        write_report(output, str(tmp_path / "r.html"), [{"path": "one.wav", "labels": []}])
