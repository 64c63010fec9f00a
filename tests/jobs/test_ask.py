"""`mats ask`: tags, JSON, several files with one model, and questions read until end of input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import mats_core
from jobs.ask import ask as ask_files
from jobs.ask import is_question, trailing_words
from jobs.cli import app
from mats_core.errors import SettingsError
from tests.tiny import SAMPLE_RATE


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sounds")
    draw = np.random.default_rng(0)
    for name, seconds in (("one", 3), ("two", 7)):
        time = np.arange(SAMPLE_RATE * seconds) / SAMPLE_RATE
        sound = 0.3 * np.sin(2 * np.pi * (300 * seconds) * time) + 0.02 * draw.standard_normal(len(time))
        soundfile.write(folder / f"{name}.wav", sound, SAMPLE_RATE)
    return [str(folder / "one.wav"), str(folder / "two.wav")]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every load of a model."""
    seen: list[str] = []
    real = mats_core.load_model

    def counted(uri: str, *given: Any, **options: Any) -> Any:
        seen.append(uri)
        return real(uri, *given, **options)

    monkeypatch.setattr("mats_core.load_model", counted, raising=False)
    return seen


def ask(model: str, *arguments: str, said: str | bytes | None = None) -> Any:
    return CliRunner().invoke(app, ["ask", *arguments, "--model", model, "--device", "cpu"], input=said)


@pytest.mark.processes
def test_several_files_load_the_model_once(sounds: list[str], tiny_model_dir: str, loads: list[str]) -> None:
    done = ask(tiny_model_dir, *sounds)
    assert loads == [tiny_model_dir]
    model = mats_core.load_model(tiny_model_dir, device="cpu")
    assert done.stdout.splitlines() == [f"{file}: {model.answer(file)}" for file in sounds]


@pytest.mark.processes
def test_json_tells_all_of_it(sounds: list[str], tiny_model_dir: str) -> None:
    done = ask(tiny_model_dir, sounds[1], "--json", "--segments", "--tag", "[audio caption]", "--task", "cla_label")
    told = json.loads(done.stdout)
    assert told["number_types"] == {"llm": "float32", "mapper": "float32", "encoder": "float32"}
    model = mats_core.load_model(tiny_model_dir, device="cpu")
    (expected,) = model.answers(sounds[1], task="cla_label", tag="[audio caption]", segments=True)
    assert "</Speech> [audio caption] Identify" in told["prompt"]
    assert told["model_fingerprint"] == model.fingerprint
    (answer,) = told["answers"]
    assert (answer["text"], answer["decoded_s"]) == (expected.text, 7.0)
    assert [part["text"] for part in answer["segments"]] == [part.text for part in expected.segments or []]
    assert len(answer["segments"]) == 2
    assert len(answer["neighbors"]) == 32


@pytest.mark.processes
def test_questions_are_read_until_end_of_input(sounds: list[str], tiny_model_dir: str, loads: list[str]) -> None:
    questions = ["What can you hear ?", "Is there a dog \ufffd?", "What can you hear ?"]
    said = "\n".join([*questions, "", "<SpeechHere>"]).encode().replace("\ufffd".encode(), b"\xff")
    done = ask(tiny_model_dir, sounds[0], "--interactive", said=said)  # a stray byte is no end of it
    assert done.exit_code == 0
    assert loads == [tiny_model_dir]
    model = mats_core.load_model(tiny_model_dir, device="cpu")
    asked = [model.answer(sounds[0], task="QA", question=question) for question in questions]
    assert done.stdout.splitlines() == asked
    assert "which stands for the sound; leave it out" in done.stderr  # the rest could be asked


def test_a_conversation_without_standard_input_is_refused_before_loading(
    sounds: list[str], tiny_model_dir: str, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`
    types = {"llm_dtype": "auto", "mapper_dtype": "float32", "encoder_dtype": "float32"}
    with pytest.raises(SettingsError, match=r"interactive: standard input is closed; open one to read questions from"):
        ask_files(sounds[:1], "caption", None, None, True, tiny_model_dir, False, "cpu", **types)
    assert loads == []


@pytest.mark.processes
def test_a_question_longer_than_the_llm_can_read_leaves_the_next_ones(sounds: list[str], tiny_model_dir: str) -> None:
    long = "rain " * 600
    done = ask(tiny_model_dir, sounds[0], "--task", "QA", "--question", long)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "mats: question: its prompt has 609 tokens" in done.stderr
    done = ask(tiny_model_dir, sounds[0], "-i", said=f"{long}\nIs there a dog ?\n")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "mats: question: its prompt has 609 tokens" in done.stderr


@pytest.mark.processes
def test_conversation_as_json_is_a_line_a_question(sounds: list[str], tiny_model_dir: str) -> None:
    done = ask(tiny_model_dir, sounds[0], "-i", "--json", said="Is there a dog ?\nHow many ?\n")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["question"] for each in told] == ["Is there a dog ?", "How many ?"]
    assert {each["task"] for each in told} == {"QA"}


@pytest.mark.processes
def test_a_bad_file_leaves_the_others(sounds: list[str], tiny_model_dir: str, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    done = ask(tiny_model_dir, str(tmp_path / "text.wav"), sounds[0])
    assert done.exit_code == 1
    assert "text.wav: not_audio" in done.stderr
    assert done.stdout.startswith(f"{sounds[0]}: ")


def test_wrong_requests_end_with_code_2(sounds: list[str], tiny_model_dir: str) -> None:
    for arguments, said in (
        ([*sounds, "-i"], "FILE: --interactive was given 2 files; give one file"),
        ([sounds[0], "-i", "--question", "What ?"], "question: --interactive reads the questions itself"),
        ([sounds[0], "--task", "QA"], "question"),
        (
            [sounds[0], "--task", "QA", "--question", "a dog\udcff?"],
            r'question: "a dog\udcff?" is not text in UTF-8',
        ),
        ([sounds[0], "--tag", "\udcff"], "is not text in UTF-8; write it in UTF-8"),
    ):
        done = ask(tiny_model_dir, *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr


def test_a_model_without_encoder_is_refused(sounds: list[str], reference_dir: Path, tmp_path: Path) -> None:
    mats_core.import_reference(
        str(reference_dir / "checkpoint_29.pth"), str(reference_dir / "llm"), str(tmp_path / "model")
    )
    done = ask(str(tmp_path / "model"), sounds[0])
    assert done.exit_code == 2
    assert "embeddings only" in done.stderr


@pytest.mark.processes
def test_what_stands_behind_the_files_may_be_a_question(sounds: list[str], tiny_model_dir: str, tmp_path: Path) -> None:
    by_option = ask(tiny_model_dir, sounds[0], "--task", "qa", "--question", "Is there rain?", "--json")
    behind = ask(tiny_model_dir, sounds[0], "Is there rain?", "--json")
    assert by_option.exit_code == 0
    assert by_option.output == behind.output
    there = tmp_path / "Is there rain?"
    there.write_bytes(Path(sounds[0]).read_bytes())
    assert not is_question([sounds[0], str(there)])
    assert not is_question(["Is there rain?"])
    assert not is_question([sounds[0], "https://host/a b.wav"])


def test_words_without_quotes_are_refused_before_loading(
    sounds: list[str], tiny_model_dir: str, loads: list[str]
) -> None:
    done = ask(tiny_model_dir, sounds[0], "Is", "there", "a", "siren?")
    assert (done.exit_code, done.stdout, loads) == (2, "", [])
    assert 'FILE: there are no files "Is", "there", "a", "siren?"; ' in done.stderr
    assert 'put a question in quotes: "Is there a siren?"' in done.stderr
    done = ask(tiny_model_dir, sounds[0], "Is there rain?", "Is there a siren?")
    assert (done.exit_code, done.stdout, loads) == (2, "", [])
    assert 'FILE: there is no file "Is there rain?"; ask one question at a time, or a line each with' in done.stderr
    assert trailing_words([sounds[0], "missing.wav", "sounds/missing", "https://host/a"]) == []
    assert trailing_words([sounds[0], "Is", sounds[1]]) == []
