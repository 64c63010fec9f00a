"""From text to answers about sound nobody has heard, every step a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from jobs.cli import app
from mats_core.scoring.labels import label_f1
from mats_core.soundworld.kinds import SAMPLE_RATE
from mats_core.soundworld.language import parse_kinds
from mats_core.soundworld.recipe import clip_recipe
from mats_core.soundworld.synth import render
from tests.e2e.conftest import ENV, read_answers

CLIPS = 60


@pytest.mark.parametrize(
    ("records", "steps", "wanted"),
    [
        (1500, 40, 0.25),  # three times what chance gives: the chain works
        pytest.param(8000, 300, 0.8, marks=pytest.mark.long),
    ],
)
def test_text_becomes_a_model_that_hears(
    shared_ray: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, steps: int, wanted: float
) -> None:
    """Text → embeddings → memory → training on two workers → captions of unseen sounds, label F1 of `wanted`.

    All paths are relative, as a user types them. The short way types all of them in this process, the long one each in
    a process of its own.
    """
    joined, sounds = ("--address", shared_ray), tmp_path / "sounds"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD", "world")
    run = apart if wanted > 0.5 else here
    run("soundworld", "corpus", "world/text.jsonl", "--records", str(records), "--rounds", "1")
    run("embed-text", "world/text.jsonl", "world/embeddings", "--actors", "1", *joined)
    run("build-memory", "world/embeddings", "world/memory", *joined)
    changes = ("--set", f"training.steps={steps}", "--set", "validate_every=1000", "--set", "validation=16")
    run("train", "soundworld", *changes, "--set", "workers=2", "--device", "cpu", *joined)
    sounds.mkdir()
    recipes = [clip_recipe("test", 50_000 + index) for index in range(CLIPS)]
    for index, recipe in enumerate(recipes):
        soundfile.write(sounds / f"{index:04d}.wav", render(recipe), SAMPLE_RATE)
    run("caption", "sounds", "out", "--model", "world/trained/model", *joined)
    answers = {Path(row["uri"]).stem: row["text"] for row in read_answers(tmp_path / "out")}
    heard = [parse_kinds(answers[f"{index:04d}"]) for index in range(CLIPS)]
    assert label_f1(heard, [recipe.labels() for recipe in recipes]).micro >= wanted
    trained = tmp_path / "world" / "trained"
    assert json.loads((trained / "_run.json").read_text())["workers"] == 2
    card = (trained / "model" / "MODEL_CARD.md").read_text()
    assert "trained on text alone" in card


def here(*arguments: str) -> None:
    """A command in this process, which must succeed."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (arguments, done.output, done.exception)


def apart(*arguments: str) -> None:
    """A command in a process of its own, which must succeed."""
    command, env = [sys.executable, "-m", "jobs", *arguments], {**ENV, "WORLD": os.environ["WORLD"]}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1200)
    assert done.returncode == 0, (arguments, done.stderr)
