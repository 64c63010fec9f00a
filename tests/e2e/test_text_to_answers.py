"""From text to answers about sound nobody has heard, every step a command of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

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
    shared_ray: str, tmp_path: Path, records: int, steps: int, wanted: float
) -> None:
    """Text → embeddings → memory → training on two workers → captions of unseen sounds, label F1 of `wanted`.

    All paths are relative, as a user types them.
    """
    joined, sounds = ("--address", shared_ray), tmp_path / "sounds"
    in_world: dict[str, Any] = {"cwd": tmp_path, "WORLD": "world"}
    run("soundworld", "corpus", "world/text.jsonl", "--records", str(records), "--rounds", "1", **in_world)
    run("embed-text", "world/text.jsonl", "world/embeddings", "--actors", "1", *joined, **in_world)
    run("build-memory", "world/embeddings", "world/memory", *joined, **in_world)
    changes = ("--set", f"training.steps={steps}", "--set", "validate_every=1000", "--set", "validation=16")
    run("train", "soundworld", *changes, "--set", "workers=2", "--device", "cpu", *joined, **in_world)
    sounds.mkdir()
    recipes = [clip_recipe("test", 50_000 + index) for index in range(CLIPS)]
    for index, recipe in enumerate(recipes):
        soundfile.write(sounds / f"{index:04d}.wav", render(recipe), SAMPLE_RATE)
    run("caption", "sounds", "out", "--model", "world/trained/model", *joined, **in_world)
    answers = {Path(row["uri"]).stem: row["text"] for row in read_answers(tmp_path / "out")}
    heard = [parse_kinds(answers[f"{index:04d}"]) for index in range(CLIPS)]
    assert label_f1(heard, [recipe.labels() for recipe in recipes]).micro >= wanted
    trained = tmp_path / "world" / "trained"
    assert json.loads((trained / "_run.json").read_text())["workers"] == 2
    card = (trained / "model" / "MODEL_CARD.md").read_text()
    assert "trained on text alone" in card


def run(*arguments: str, cwd: Path, **variables: str) -> None:
    """A command in a process of its own, which must succeed."""
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**ENV, **variables}, timeout=1200, cwd=cwd)
    assert done.returncode == 0, (arguments, done.stderr)
