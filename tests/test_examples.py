"""What lies in examples/ runs as it stands, as a user would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.soundworld.corpus import write_corpus
from tests.e2e.conftest import write_tones
from tests.house import ROOT

EXAMPLES = ROOT / "examples"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def ran(*arguments: str | Path, code: int = 0, **given: Any) -> str:
    """What a Python program printed, which ended with `code`."""
    done = subprocess.run([sys.executable, *arguments], env=ENV, capture_output=True, text=True, timeout=900, **given)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


def cells(notebook: Path) -> list[str]:
    """The code of a notebook, a cell each."""
    found = json.loads(notebook.read_text(encoding="utf-8"))
    assert found["nbformat"] == 4 and all(
        cell["outputs"] == [] for cell in found["cells"] if cell["cell_type"] == "code"
    )
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


SHOWN = """
import ast, sys
names = {"__name__": "__main__"}
for number, text in enumerate(map(str, __import__("json").load(sys.stdin))):
    tree = ast.parse(text, f"cell {number}")
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    if last is not None and (value := eval(compile(last, f"cell {number}", "eval"), names)) is not None:
        print(f"[{number}]", repr(value))
"""


@pytest.mark.long
@pytest.mark.processes
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    """Without Jupyter: its cells one after the other in one process, where what a cell ends with is shown."""
    text = cells(EXAMPLES / "first_steps.ipynb")
    told = ran("-c", SHOWN, cwd=tmp_path, input=json.dumps(text))
    assert "[1] MatsModel(" in told and "[3] 'Together'" in told
    assert "RunResult(status='complete'" in told and "not_audio" in told and "report.html" in told
    assert list(tmp_path.iterdir()) == []  # it works in a folder of its own


@pytest.mark.long
@pytest.mark.processes
def test_a_bucket_is_captioned(tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tones(tmp_path / "sounds", 3, 2.0)
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF, or so")
    for name, value in {**store.keys, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": store.endpoint}})}.items():
        monkeypatch.setitem(ENV, name, value)
        monkeypatch.setenv(name, value)
    store.client().create_bucket(Bucket="sounds")
    source, target = "s3://sounds/2024/", "s3://sounds/answers"
    for file in sorted((tmp_path / "sounds").iterdir()):
        storage.write_bytes(source + file.name, file.read_bytes())
    told = ran(EXAMPLES / "caption_bucket.py", source, target)
    assert told.startswith("complete: 4 clips") and "broken.wav" in told
    assert ran(EXAMPLES / "caption_bucket.py", source, target).startswith("complete_before: 4 clips")
    command = [sys.executable, EXAMPLES / "caption_bucket.py", source + "none/", target]
    wrong = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr and "; " in wrong.stderr
    assert (
        "s3://sounds/2024/"
        in subprocess.run(
            [sys.executable, EXAMPLES / "caption_bucket.py"], env=ENV, capture_output=True, text=True
        ).stderr
    )


@pytest.mark.long
@pytest.mark.processes
def test_a_model_is_trained_on_own_sentences(tmp_path: Path) -> None:
    """Two minutes on two cores."""
    write_corpus(tmp_path / "text.jsonl", 400, 3)
    records = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    sentences = list(dict.fromkeys(record["caption"] for record in records))
    (tmp_path / "sentences.txt").write_text("\n".join(sentences) + "\n\n")
    told = ran(EXAMPLES / "train_on_own_text.py", tmp_path / "sentences.txt", tmp_path / "work", "20")
    assert f"{len(sentences)} sentences" in told and "complete after 20 steps" in told and "MatsModel(" in told
    assert pq.read_table(tmp_path / "work" / "embeddings" / "embeddings").num_rows == len(sentences)
    assert (tmp_path / "work" / "trained" / "model" / "memory").is_dir()


@pytest.mark.long
@pytest.mark.processes
def test_a_night_that_is_worse_is_told(tmp_path: Path, tiny_model_dir: str) -> None:
    """The shipped model twice, and then one that knows nothing."""
    script = EXAMPLES / "nightly_evaluation.py"
    for _ in range(2):
        told = ran(script, "builtin", tmp_path / "runs", "soundworld_labels", "12")
        assert "soundworld_labels" in told and "report.html" in told
    worse = ran(script, tiny_model_dir, tmp_path / "runs", "soundworld_labels", "12", code=4)
    assert "worse than before:" in worse
