"""The authors' recipe from published files to a model, every step a command, as a user would type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.corpus.definition import list_corpus_sets
from tests.e2e.conftest import ENV
from tests.pipelines.corpus.made_up import OPEN_SETS, write_made_up

CLOSED = [name for name in list_corpus_sets() if name not in (*OPEN_SETS, "clothoaqa")]
"""The sets of stage 1."""


@pytest.mark.long
def test_published_files_become_a_model_of_stage_1(shared_ray: str, tiny_model_dir: str, tmp_path: Path) -> None:
    """Labels and captions → records → embeddings → ten steps of mats_stage1, all of it named by paths alone.

    With the real files: leave out the first line, say `all` for the names, and take CLAP's and Vicuna's paths.
    """
    write_made_up(tmp_path / "published", share=0.0002, names=CLOSED)
    run(tmp_path, "corpus", *CLOSED, "--data", "published", "--out", "corpus", "--address", shared_ray)
    told = json.loads((tmp_path / "corpus" / "_corpus.json").read_text())["sets"]
    assert set(told) == set(CLOSED) and all(each["complete"] for each in told.values())

    encoder = str(Path(tiny_model_dir) / "encoder")
    run(tmp_path, "embed-text", "corpus/records", "embeddings", "--encoder", encoder, "--address", shared_ray)
    captions = pq.read_table(tmp_path / "embeddings" / "embeddings", columns=["caption", "sources"])
    assert {source for row in captions["sources"].to_pylist() for source in row} == set(CLOSED)

    paths = {
        "MATS_DATA": "corpus", "MATS_EMBEDDINGS": "embeddings", "MATS_OUT": "models",
        "MATS_CLAP": encoder, "MATS_LLM": str(Path(tiny_model_dir) / "llm"), "MATS_BATCH": "4",
    }  # fmt: skip
    small = {
        "training.steps": 10, "training.warmup_steps": 3, "workers": 1, "dtype": "float32", "validation": 4,
        "mapper": {"kind": "transformer", "vectors": 4, "clip_tokens": 4, "width": 32, "layers": 1, "heads": 2},
    }  # fmt: skip
    changes = [part for name, value in small.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    run(tmp_path, "train", "mats_stage1", *changes, "--device", "cpu", "--address", shared_ray, **paths)
    trained = json.loads((tmp_path / "models" / "stage1" / "_run.json").read_text())
    assert (trained["status"], trained["step"]) == ("complete", 10)
    assert (tmp_path / "models" / "stage1" / "model" / "mats.json").is_file()


def run(cwd: Path, *arguments: str, **variables: Any) -> None:
    """A command in a process of its own, which must succeed."""
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, cwd=cwd, env={**ENV, **variables}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
