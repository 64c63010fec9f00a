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

import numpy as np
import pytest
import torch

from mats_core.model.directory import BUILTIN
from mats_core.model.model import MatsModel, load_model
from tests.e2e.conftest import ENV, ROOT

WORDS = {"siren": "a signal", "dog": "an animal", "engine": "a machine", "voice": "a person"}
"""What CLAP hears → what the archive calls it. The kinds are CLAP's own: words that it never learnt ("kazoo",
"theremin") are one embedding to it, so that no training on text can tell them apart."""
HEARD = ("A {}.", "The sound of a {}.", "A {} is heard.", "A recording of a {}.")
RECORDS = [
    {"caption": heard.format(kind), "output": f"{word.capitalize()} is heard."}
    for kind, word in WORDS.items()
    for heard in HEARD
]


@pytest.mark.long
def test_an_interrupted_adaptation_is_continued_to_the_same_model(tmp_path: Path) -> None:
    """Told to stop while it trains, it keeps all and ends with 130; the same command ends with a model directory that
    says the archive's words, and the same one as a run that nothing stopped."""
    (tmp_path / "corrected.jsonl").write_text("\n".join(map(json.dumps, RECORDS * 4)))
    options = ("--steps", "60", "--replay-captions", "128", "--device", "cpu")
    assert _adapt(tmp_path, tmp_path / "m2", options, stop_at="training: step") == 130
    told = json.loads((tmp_path / "m2" / "_run.json").read_text())
    assert told["status"] == "interrupted" and not (tmp_path / "m2" / "mats.json").exists()
    assert _adapt(tmp_path, tmp_path / "m2", options) == 0
    assert _adapt(tmp_path, tmp_path / "whole", options) == 0
    for name in ("mapper.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "m2" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    before, model = load_model("builtin", device="cpu"), load_model(tmp_path / "m2", device="cpu")
    assert model.memory is not None and model.encoder is not None
    new = len(RECORDS) - len(_known(before))
    assert model.memory.count == before.memory.count + new
    heard = model.encoder.embed_text([record["caption"] for record in RECORDS])
    assert _right(before, heard) == 0
    assert _right(model, heard) > len(RECORDS) / 2
    assert "continued from" in (tmp_path / "m2" / "MODEL_CARD.md").read_text()


def _known(model: MatsModel) -> set[str]:
    """The captions that its memory has already."""
    known = set(model.memory.captions(np.arange(model.memory.count)))
    return {record["caption"] for record in RECORDS} & known


def _right(model: MatsModel, heard: torch.Tensor) -> int:
    """How many embeddings [N, D] a model captions with the archive's word."""
    said = model.generate(heard, [model.prompt("caption")] * len(heard))
    words = (record["output"].split()[1] for record in RECORDS)
    return sum(word in text for word, text in zip(words, said, strict=True))


def _adapt(folder: Path, out: Path, options: tuple[str, ...], stop_at: str = "") -> int:
    """The exit code of `mats adapt` of the shipped model; told to stop where its log says `stop_at`."""
    given = ("--model", str(BUILTIN), "--text", str(folder / "corrected.jsonl"), "--out", str(out), *options)
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
