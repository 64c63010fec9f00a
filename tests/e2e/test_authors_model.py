"""The authors' checkpoint with Microsoft's CLAP at its official size: imported, asked by file and by archive."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mats_core
from tests.e2e.conftest import read_answers

pytestmark = [pytest.mark.long, pytest.mark.msclap, pytest.mark.e2e]


def test_import_ask_and_caption_give_the_same_answers(
    mats: Callable[..., subprocess.CompletedProcess[str]], reference_dir: Path, tmp_path: Path
) -> None:
    from tests.official_clap import write_official

    clap = write_official(tmp_path)
    draw, time = np.random.default_rng(0), np.arange(9 * 22_050) / 22_050
    (tmp_path / "archive").mkdir()
    files = [tmp_path / "archive" / f"{name}.wav" for name in "ab"]
    for index, file in enumerate(files):
        sound = 0.3 * np.sin(2 * np.pi * (300 + 900 * index) * time) + 0.02 * draw.standard_normal(len(time))
        soundfile.write(file, sound, 22_050)
    model = str(tmp_path / "model")
    given = ["--checkpoint", str(reference_dir / "checkpoint_29.pth"), "--llm", str(reference_dir / "llm")]
    given += ["--clap", f"{clap.weights}?tokenizer={clap.tokens}", "--max-new-tokens", "12"]
    done = mats("import-reference", *given, "--out", model)
    assert done.returncode == 0, done.stderr
    inside = str(tmp_path / "inside")
    mats_core.load_model(model, device="cpu").save(inside, include=("encoder", "llm"))
    asked = mats("ask", *map(str, files), "--model", model)
    assert asked.returncode == 0, asked.stderr
    captioned = mats("caption", str(tmp_path / "archive"), str(tmp_path / "out"), "--model", inside)
    assert captioned.returncode == 0, captioned.stderr
    rows = {row["uri"]: row["text"] for row in read_answers(tmp_path / "out")}
    assert asked.stdout.splitlines() == [f"{file}: {rows[str(file)]}" for file in files]
    assert len(set(rows.values())) == 2
