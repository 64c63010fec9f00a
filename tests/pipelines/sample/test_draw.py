"""Clips are drawn by confidence, in tenths of a task, and the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.data import parquet
from pipelines.sample.draw import Stratum, allotted, answered, drawn_of, shown_rows, strata_of
from tests.pipelines.export.made_up import answer_rows


def table(confidence: Any, tasks: Any = None) -> pa.Table:
    count = len(confidence)
    return pa.table(
        {
            "row_id": pa.array(range(100, 100 + count), pa.int64()),
            "task": pa.array(tasks if tasks is not None else ["caption"] * count, pa.string()),
            "confidence": pa.array(confidence, pa.float32()),
            "given": [True] * count,
        }
    )


def write(run: Path, rows: pa.Table, parts: int = 1) -> str:
    size = -(-len(rows) // parts)
    for number in range(parts):
        parquet.write(str(run / "answers" / f"part-{number}.parquet"), rows.slice(number * size, size))
    return str(run)


def test_answers_are_all_that_have_words_and_older_runs_have_no_confidence(tmp_path: Path) -> None:
    rows = answer_rows([f"/a/{n}.wav" for n in range(6)], ["a", "b", None, "d", None, "f"])
    found, failed = answered(write(tmp_path / "old", rows, parts=2))
    assert (found["row_id"].to_pylist(), failed) == ([0, 1, 3, 5], 2)
    assert found["confidence"].null_count == 4
    unsure = pa.array([None, None, None, None, "held back", None], pa.string())
    newer = rows.append_column("confidence", pa.array([0.1, 0.2, None, 0.4, 0.05, 0.6], pa.float32()))
    found, failed = answered(write(tmp_path / "new", newer.append_column("text_unsure", unsure), parts=3))
    assert (found["row_id"].to_pylist(), failed) == ([0, 1, 3, 4, 5], 1)
    assert found["given"].to_pylist() == [True, True, True, False, True]
    found, _ = answered(str(tmp_path / "new"), where="confidence > 0.15")
    assert found["row_id"].to_pylist() == [1, 3, 5]
    assert shown_rows(str(tmp_path / "new"), np.array([4, 1]))[4]["text_unsure"] == "held back"
    with pytest.raises(SettingsError, match="holds no answers"):
        answered(str(tmp_path))


def test_the_column_that_folders_of_a_compaction_are_named_by_is_there_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number, kind in enumerate(("dog", "bird")):
        rows = answer_rows([f"/{kind}/{at}.wav" for at in range(2)], ["a", "b"])
        rows = rows.set_column(rows.schema.names.index("row_id"), "row_id", pa.array([2 * number, 2 * number + 1]))
        write(run, rows.drop_columns(["task"]))
        (run / "answers" / f"task={kind}").mkdir()
        (run / "answers" / "part-0.parquet").rename(run / "answers" / f"task={kind}" / "part-0.parquet")
    found, _ = answered(str(run))
    assert found["task"].to_pylist() == ["dog", "dog", "bird", "bird"]
    assert answered(str(run), where="task = 'bird'")[0]["row_id"].to_pylist() == [2, 3]
    assert shown_rows(str(run), np.array([3]))[3]["task"] == "bird"


def test_strata_are_tenths_by_confidence_also_where_many_are_the_same() -> None:
    confidence = np.random.default_rng(0).permutation(np.linspace(0, 1, 1000))
    strata = strata_of(table(confidence), 200)
    assert [each.name for each in strata] == [f"caption {n:02d}/10" for n in range(1, 11)]
    for number, each in enumerate(strata):
        own = confidence[each.rows - 100]
        assert len(own) == 100 and number / 10 - 0.01 <= own.min() and own.max() <= (number + 1) / 10 + 0.01
    assert [len(each.rows) for each in strata_of(table([0.99] * 100), 100)] == [10] * 10
    assert len(strata_of(table(confidence), 12)) == 3  # four clips of each at least
    assert [each.name for each in strata_of(table(confidence), 2)] == ["caption 01/01"]


def test_tasks_and_rows_without_confidence_are_strata_of_their_own() -> None:
    tasks = ["caption"] * 60 + ["QA"] * 40
    mixed = [0.5] * 50 + [None] * 10 + [None] * 40
    assert [(each.name, len(each.rows)) for each in strata_of(table(mixed, tasks), 8)] == [
        ("QA", 40), ("caption 01/01", 50), ("caption without confidence", 10),
    ]  # fmt: skip
    assert [each.name for each in strata_of(table([float("nan")] * 4, [None] * 4), 2)] == ["answers"]


def test_draws_are_by_rows_with_two_at_least_and_reproducible() -> None:
    strata = [Stratum("a", np.arange(900)), Stratum("b", np.arange(900, 997)), Stratum("c", np.arange(997, 1000))]
    assert allotted(strata, 100) == [89, 9, 2]
    assert allotted(strata, 5000) == [900, 97, 3]
    assert sum(allotted(strata, 7)) == 7
    with pytest.raises(SettingsError, match=r"n: 5 clips are too few.*draw at least 6"):
        allotted(strata, 5)
    once, again, other = (drawn_of(strata, [10, 3, 3], seed) for seed in (4, 4, 5))
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert (once[0] != other[0]).any()
    assert all(len(set(each.tolist())) == len(each) for each in once)
    assert set(once[2].tolist()) == {997, 998, 999}
