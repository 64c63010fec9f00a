"""Stages without Ray: every table passes all of them, and what goes wrong is told as on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.cluster.execution import Here
from pipelines.cluster.session import RunFailed
from pipelines.cluster.stages import Stage, StageContext
from tests.pipelines.cluster.test_isolation import Fragile, answers, numbers, starts


class Halves:
    """Cuts a table in two, and leaves out zeros."""

    def __init__(self, context: StageContext) -> None:
        self.run_id = context.run_id

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        middle = len(rows) // 2
        for half in (rows.slice(0, middle), rows.slice(middle)):
            yield half.filter(pa.array([number != 0 for number in half["number"].to_pylist()], pa.bool_()))


def stages(tmp_path: Path, isolated: bool) -> list[Stage]:
    return [Stage("halves", Halves), Stage("fragile", Fragile, (str(tmp_path / "starts"),), isolated=isolated)]


def test_tables_pass_all_stages_in_their_order(tmp_path: Path) -> None:
    with Here() as here:
        found = list(here.run([numbers(1, 2, 3), numbers(0, 4)], stages(tmp_path, False), StageContext()))
    assert [row["number"] for table in found for row in table.to_pylist()] == [1, 2, 3, 4]
    assert answers(found)[4] == "16" and all(len(table) for table in found)


@pytest.mark.processes
def test_models_are_loaded_before_there_is_work_and_end_with_it(tmp_path: Path) -> None:
    with Here() as here:
        here.start(stages(tmp_path, True), StageContext())
        child = here._models["fragile"]._process._process
        found = list(here.run([numbers(1, 7)], stages(tmp_path, True), StageContext()))
        assert answers(found) == {1: "1", 7: "it ended the model's process (exit code 3)"}
    assert starts(tmp_path) == 3  # the table of the seven, twice, and what says that it is refused
    assert child.returncode == 3
    assert here._models["fragile"]._process._process.returncode == -9


def test_what_a_stage_raises_is_told_as_on_ray(tmp_path: Path) -> None:
    with Here() as here, pytest.raises(SettingsError, match="it is eight"):
        list(here.run([numbers(8)], stages(tmp_path, False), StageContext()))
    broken = pa.table({"other": [1]})
    with Here() as here, pytest.raises(RunFailed, match="KeyError"):
        list(here.run([broken], stages(tmp_path, False), StageContext()))
