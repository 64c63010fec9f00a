"""Records out of sentences, and out of a model's own memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.errors import SettingsError, StorageError
from mats_core.model.model import MatsModel, load_model
from pipelines.adapt.records import (
    AT_ONCE,
    QUESTIONS,
    answer_memory,
    new_records,
    read_records,
    text_files,
    write_records,
)
from pipelines.data.corpus import FileReport, read_corpus
from pipelines.output.corrections import Corrections
from tests.tiny import make_tiny_model


def records(path: Path, columns: dict[str, str] | None = None, task: str = "caption") -> tuple[list[Any], FileReport]:
    reports: list[FileReport] = []
    found = list(new_records(text_files([str(path)]), columns or {}, task, reports))
    return found, reports[0]


def test_a_sentence_is_caption_and_answer(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes("\ufeffA theremin  wails.\r\n\n  Ein Käuzchen ruft.\nA kazoo".encode())
    found, report = records(tmp_path / "s.txt")
    assert [each["caption"] for each in found] == ["A theremin wails.", "Ein Käuzchen ruft.", "A kazoo"]
    assert all(each["output"] == each["caption"] and each["task"] == "caption" for each in found)
    assert (report.records, report.bad) == (3, 0)


def test_several_captions_of_a_sound_stay_several(tmp_path: Path) -> None:
    """The first is the answer where none is given, and all of them are the sound, in the files of the run too."""
    rows = [
        {"caption": ["A theremin wails.", "A theremin, then rain."]},
        {"caption": ["A kazoo."], "output": "ka\u2028zoo"},
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, report = records(tmp_path / "s.jsonl")
    told = [(each["caption"], each["output"]) for each in found]
    assert told == [("A theremin wails.\nA theremin, then rain.", "A theremin wails."), ("A kazoo.", "ka\u2028zoo")]
    assert write_records(tmp_path / "new.jsonl", iter(found)) == 2
    assert list(read_records(tmp_path / "new.jsonl")) == found
    again = list(read_corpus(str(tmp_path / "new.jsonl"), report))
    assert [(each["caption"], each["output"]) for each in again] == told


def test_a_line_that_is_no_text_is_counted_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"A dog.\n\nA \xff cat.\n")
    found, report = records(tmp_path / "s.txt")
    assert [each["caption"] for each in found] == ["A dog."]
    assert report.lines == [{"line": 3, "code": "not_text", "detail": "caption"}]


def test_corrected_answers_of_a_run(tmp_path: Path) -> None:
    rows = [
        {"uri": "a.wav", "task": "caption", "question": None, "text": "A theremin wails."},
        {"uri": "a.wav", "task": "cla_label", "question": None, "text": "Theremin, rain"},
        {"uri": "a.wav", "task": "QA", "question": "Is there rain?", "text": "Yes"},
        {"uri": "b.wav", "task": "caption", "question": None, "text": None, "error_code": "not_audio"},
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, report = records(tmp_path / "answers.jsonl", {"caption": "text", "instruction": "question"})
    told = [(each["task"], each["caption"], each["output"]) for each in found]
    assert told == [
        ("caption", "A theremin wails.", "A theremin wails."), ("cla_label", "Theremin, rain", "Theremin, rain"),
    ]  # fmt: skip
    assert dict(report.problems) == {"missing_output": 1, "missing_caption": 1}  # what stands for the sound of "Yes"?


def test_what_was_put_right_in_a_run(tmp_path: Path) -> None:
    said = Corrections(str(tmp_path / "out"))
    row = {"row_id": 0, "uri": "/a.wav", "start_s": 0.0, "task": "caption", "text": "A cat."}
    said.correct(row, 0, "Ann", {"text": "A theremin wails."})
    said.correct(
        {**row, "row_id": 1, "task": "QA", "question": "Is it low?", "text": "no"}, 0, "Ann", {"mark": "right"}
    )
    said.correct({**row, "row_id": 2, "uri": "/b.wav"}, 0, "Ann", {"mark": "wrong"})
    found, report = records(tmp_path / "out")
    told = [(each["task"], each["caption"], each["instruction"], each["output"]) for each in found]
    assert told == [
        ("caption", "A theremin wails.", "", "A theremin wails."), ("QA", "A theremin wails.", "Is it low?", "no"),
    ]  # fmt: skip
    assert (report.records, report.bad) == (2, 0)
    (before,) = text_files([str(tmp_path / "out")])
    said.correct(row, 1, "Bob", {"text": "A saw."})
    (after,) = text_files([str(tmp_path / "out")])
    assert before.version != after.version, "what is said later is another text"


def test_of_a_file_it_is_not_asked_whether_it_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may allow reading its objects and nothing else."""
    (tmp_path / "s.txt").write_text("A dog.")
    (tmp_path / "r.jsonl").write_text(json.dumps({"caption": "A cat.", "output": "A cat.", "task": "caption"}))
    asked: list[str] = []

    def denied(uri: str) -> bool:
        asked.append(uri)
        raise StorageError("access_denied", "no")

    monkeypatch.setattr("pipelines.adapt.records.storage.is_dir", denied)
    for name in ("s.txt", "r.jsonl"):
        assert len(records(tmp_path / name)[0]) == 1
    assert asked == []
    with pytest.raises(StorageError):
        text_files([str(tmp_path / "run")])


def test_whole_records_are_taken_as_they_are(tmp_path: Path) -> None:
    row = {"caption": "A theremin", "instruction": "What is it?", "output": "a theremin", "task": "QA", "tag": "[qa]"}
    (tmp_path / "r.jsonl").write_text(json.dumps(row))
    (found,), _ = records(tmp_path / "r.jsonl")
    assert found == {**row, "source": "r"}


@pytest.mark.parametrize(
    ("name", "said"), [("gone.txt", "gone.txt cannot be read"), ("a.doc", r"\.doc is of no format|cannot be read")]
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, said: str) -> None:
    if name == "a.doc":
        (tmp_path / name).write_text("x")
    with pytest.raises(SettingsError, match=said):
        text_files([str(tmp_path / name)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MatsModel:
    return load_model(str(make_tiny_model(tmp_path_factory.mktemp("tiny"))), device="cpu", encoder=False)


def test_the_memory_is_answered_by_the_model_itself(model: MatsModel, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = list(answer_memory(model, tmp_path, 100, 3, lambda done, of: told.append((done, of))))
    assert told == [(0, 100), (AT_ONCE, 100), (100, 100)]
    captions = set(model.memory.captions(np.arange(model.memory.count)))
    tasks = [each["task"] for each in found]
    assert {each["caption"] for each in found} <= captions
    assert all(each["output"] == each["caption"] for each in found if each["task"] == "caption")
    assert tasks.count("caption") == 25 and set(tasks) == set(model.config.tasks)
    questions = Counter(each["instruction"] for each in found if each["task"] == "QA")
    assert set(questions) <= set(QUESTIONS) and max(questions.values()) <= 5  # 25 questions of six kinds
    labels = next(each for each in found if each["task"] == "cla_label")
    row = next(n for n in range(model.memory.count) if model.memory.captions(np.array([n])) == [labels["caption"]])
    vector = torch.from_numpy(model.memory.vectors(np.array([row])))
    assert model.generate(vector, [model.prompt("cla_label")])[0].strip() == labels["output"]


def test_what_was_answered_is_not_answered_again(model: MatsModel, tmp_path: Path) -> None:
    before = list(answer_memory(model, tmp_path, 80, 3))
    first = sorted(tmp_path.iterdir())[0]
    first.write_text(first.read_text().replace('"source": "replay"', '"source": "kept"', 1))
    again = list(answer_memory(model, tmp_path, 80, 3))
    assert [each["source"] for each in again].count("kept") == 1
    assert [{**each, "source": "replay"} for each in again] == before
