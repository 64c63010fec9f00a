"""Answers are read back item by item, and never joined over two versions of a sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.evaluate.answers import read_answers
from pipelines.evaluate.datasets import load_evaluation_set, load_items
from tests.pipelines.evaluate.stand_in import CLIPS, NAMES, evaluate


@pytest.mark.processes
@pytest.mark.parametrize("column", ["uri", "version", "start_s"])
def test_answers_to_two_versions_of_a_sound_are_not_joined(model: Any, data: str, tmp_path: Path, column: str) -> None:
    evaluate(data, tmp_path / "out", benchmarks=NAMES[0])
    part = tmp_path / "out" / "cells" / "run" / "answers" / "part-0.parquet"
    rows = pq.read_table(part).to_pylist()
    rows.append({**rows[0], "start_s": 60.0} | {column: 0.0 if column == "start_s" else "other"})
    schema = pq.read_table(part).schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), part.with_name("part-1.parquet"))
    part.unlink()
    data_sets = [load_items(load_evaluation_set(NAMES[0]), data, CLIPS)]
    with pytest.raises(
        SettingsError, match=f"2 answers to {rows[0]['item']} of {NAMES[0]}, whose sound changed between them"
    ):
        read_answers(str(part.parents[1]), data_sets)
    rows[-1] = {**rows[0], "start_s": 60.0}
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), part.with_name("part-1.parquet"))
    assert len(read_answers(str(part.parents[1]), data_sets)[NAMES[0]]) == CLIPS
