"""The plain process answers as the model does, and counts its stages."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mats_core
from jobs.benchmarks.pipeline.plain import answer_files
from tests.e2e.conftest import write_tones


@pytest.mark.processes  # model.answer decodes in a child
def test_answers_are_the_models(tmp_path: Path, tiny_model_dir: str) -> None:
    write_tones(tmp_path / "in", 3, 1.0)
    files = sorted(str(path) for path in (tmp_path / "in").iterdir())
    model = mats_core.load_model(tiny_model_dir, device="cpu")
    stage = answer_files(model, files, tmp_path / "out.parquet", batch_size=2)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["uri"] for row in rows] == files
    assert [row["text"] for row in rows] == [model.answer(file) for file in files]
    assert stage["audio_s"] == pytest.approx(sum(row["decoded_s"] for row in rows))
    assert all(stage[name] > 0 for name in ("decode_s", "embed_s", "answer_s", "write_s"))
