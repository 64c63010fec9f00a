"""`mats adapt` as a user runs it: interrupted in the middle of training, continued, and asked about new words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mats_core.model.directory import BUILTIN
from mats_core.model.model import load_model
from tests.e2e.conftest import ENV, ROOT

WORDS = ("theremin", "didgeridoo", "kazoo", "harmonium")
PLAYS = ("plays", "is heard", "sounds far away", "goes on and on")
SENTENCES = [f"A {word} {plays}." for word in WORDS for plays in PLAYS]


@pytest.mark.long
def test_an_interrupted_adaptation_is_continued_to_the_same_model(tmp_path: Path) -> None:
    """Told to stop while it trains, it keeps all and ends with 130; the same command ends with a model directory that
    says the new words of their own embeddings, and the same one as a run that nothing stopped."""
    (tmp_path / "sentences.txt").write_text("\n".join(SENTENCES * 4))
    options = ("--steps", "60", "--replay-captions", "128", "--device", "cpu")
    assert _adapt(tmp_path, tmp_path / "m2", options, stop_at="training: step") == 130
    told = json.loads((tmp_path / "m2" / "_run.json").read_text())
    assert told["status"] == "interrupted" and not (tmp_path / "m2" / "mats.json").exists()
    assert _adapt(tmp_path, tmp_path / "m2", options) == 0
    assert _adapt(tmp_path, tmp_path / "whole", options) == 0
    for name in ("mapper.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "m2" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    model = load_model(tmp_path / "m2", device="cpu")
    assert model.memory is not None and model.encoder is not None
    assert model.memory.count == load_model("builtin", device="cpu").memory.count + len(SENTENCES)
    said = model.generate(model.encoder.embed_text(SENTENCES), [model.prompt("caption")] * len(SENTENCES))
    right = sum(sentence.split()[1] in text for sentence, text in zip(SENTENCES, said, strict=True))
    assert right > len(SENTENCES) / 2, said
    assert "continued from" in (tmp_path / "m2" / "MODEL_CARD.md").read_text()


def _adapt(folder: Path, out: Path, options: tuple[str, ...], stop_at: str = "") -> int:
    """The exit code of `mats adapt` of the shipped model; told to stop where its log says `stop_at`."""
    given = ("--model", str(BUILTIN), "--text", str(folder / "sentences.txt"), "--out", str(out), *options)
    log = out.with_suffix(".log")
    with log.open("w") as file:
        command: Any = [sys.executable, "-m", "jobs", "adapt", *given]
        process = subprocess.Popen(command, env=ENV, cwd=ROOT, stderr=file, stdout=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 900
        while stop_at and stop_at not in log.read_text() and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        if stop_at:
            time.sleep(2)
            process.send_signal(signal.SIGINT)
        code = process.wait(900)
        assert code in (0, 130), log.read_text()
        return code
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
