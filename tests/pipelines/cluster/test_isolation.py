"""An actor in a process of its own: what ends the process costs one row, whatever stands beside it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.cluster import isolation
from pipelines.cluster.isolation import IsolatedStage
from pipelines.cluster.stages import Stage, StageContext

pytestmark = pytest.mark.processes


class Fragile:
    """Answers numbers with their squares, in two tables. Seven ends its process, eight raises; every start is noted."""

    def __init__(self, context: StageContext, starts: str, ends_at: str = "") -> None:
        with open(starts, "a") as file:
            file.write(f"{os.getpid()}\n")
        if ends_at == "start":
            raise OSError("no such model")

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        numbers = rows["number"].to_pylist()
        if 7 in numbers:
            os._exit(3)
        if 6 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        if 8 in numbers:
            raise SettingsError("number", "it is eight", "give another")
        if 9 in numbers:
            time.sleep(600)
        squares = pa.table({"number": numbers, "square": [str(number**2) for number in numbers]})
        yield squares.slice(0, 1)
        yield squares.slice(1)

    def refused(self, rows: pa.Table, reason: str) -> pa.Table:
        return pa.table({"number": rows["number"], "square": [reason] * len(rows)})


def stage(tmp_path: Path, *more: str) -> IsolatedStage:
    return IsolatedStage(StageContext(), Stage("fragile", Fragile, (str(tmp_path / "starts"), *more)))


def numbers(*given: int) -> pa.Table:
    return pa.table({"number": pa.array(given, pa.int64())})


def answers(found: Any) -> dict[int, str]:
    return {row["number"]: row["square"] for table in found for row in table.to_pylist()}


def starts(tmp_path: Path) -> int:
    return len((tmp_path / "starts").read_text().splitlines())


def test_a_row_that_ends_the_process_costs_itself(tmp_path: Path) -> None:
    fragile = stage(tmp_path)
    found = answers(fragile(numbers(1, 7, 2, 6, 3)))
    assert {number: found[number] for number in (1, 2, 3)} == {1: "1", 2: "4", 3: "9"}
    assert found[7] == "it ended the model's process (exit code 3)"
    assert found[6] == "it ended the model's process (SIGKILL)"
    assert list(found) == [1, 7, 2, 6, 3]  # in their order
    assert starts(tmp_path) == 5  # the table twice, each of the two rows once, and the one that lives on
    assert answers(fragile(numbers(4, 5))) == {4: "16", 5: "25"}
    assert starts(tmp_path) == 5
    fragile.close()


def test_a_process_that_others_end_costs_nothing(tmp_path: Path) -> None:
    fragile = stage(tmp_path)
    assert answers(fragile(numbers(2))) == {2: "4"}
    os.kill(int((tmp_path / "starts").read_text()), signal.SIGKILL)
    assert answers(fragile(numbers(3))) == {3: "9"}
    fragile.close()


def test_what_an_actor_raises_is_raised_and_ends_nothing(tmp_path: Path) -> None:
    fragile = stage(tmp_path)
    with pytest.raises(SettingsError, match="it is eight; give another"):
        answers(fragile(numbers(8)))
    assert answers(fragile(numbers(2))) == {2: "4"} and starts(tmp_path) == 1
    fragile.close()


def test_a_loop_of_deaths_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "MOST_DEATHS", 4)
    fragile = stage(tmp_path)
    with pytest.raises(RuntimeError, match=r"ended 4 times in a row, and answered nothing in between \(exit code 3\)"):
        answers(fragile(numbers(*[7] * 10)))
    assert starts(tmp_path) == 4


def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not start \(exit code 1 \(OSError: no such model\)\)"):
        answers(stage(tmp_path, "start")(numbers(1)))
    assert starts(tmp_path) == isolation.FAILED_STARTS


def test_no_process_outlives_its_parent_whatever_it_is_at(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(root)!r})  # what the child imports as well; the folder one stands in does not count
from tests.pipelines.cluster.test_isolation import answers, numbers, stage
answers(stage(Path({str(tmp_path)!r}))(numbers(9)))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 100
    while not (tmp_path / "starts").exists() or not (tmp_path / "starts").read_text():
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    child = psutil.Process(int((tmp_path / "starts").read_text()))
    parent.kill()
    parent.wait()
    child.wait(60)


def test_closing_ends_what_is_at_work(tmp_path: Path) -> None:
    fragile = stage(tmp_path)
    asked = fragile._process.submit("run", numbers(9))
    fragile.close()
    with pytest.raises(isolation.ProcessEnded, match="SIGKILL"):
        asked.result(60)


def test_rows_travel_without_what_they_were_cut_from(tmp_path: Path) -> None:
    table = pa.table({"number": pa.array(range(100_000), pa.int64())})
    assert len(isolation._packed(table.slice(5, 1))) < 2000
    assert isolation._unpacked(isolation._packed(table.slice(5, 2))).to_pylist() == [{"number": 5}, {"number": 6}]


class Meeting(Fragile):
    """Answers a negative number when two are there at once."""

    together = threading.Barrier(2)

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        if rows["number"][0].as_py() < 0:
            self.together.wait(60)
        yield from super().__call__(rows)


def in_threads(actor: IsolatedStage, tables: list[pa.Table]) -> list[dict[int, str]]:
    with ThreadPoolExecutor(len(tables)) as threads:
        return list(threads.map(lambda table: answers(actor(table)), tables))


def test_tables_are_in_the_process_at_once(tmp_path: Path) -> None:
    meeting = IsolatedStage(StageContext(), Stage("meeting", Meeting, (str(tmp_path / "starts"),), in_flight=2))
    assert in_threads(meeting, [numbers(-1), numbers(-2)]) == [{-1: "1"}, {-2: "4"}]
    meeting.close()


def test_of_tables_that_were_there_together_one_row_is_found(tmp_path: Path) -> None:
    """Five tables, three at once, of which two hold a row that ends the process."""
    fragile = IsolatedStage(StageContext(), Stage("fragile", Fragile, (str(tmp_path / "starts"),), in_flight=3))
    tables = [numbers(10 * at, 10 * at + 1) for at in range(1, 4)]
    found = in_threads(fragile, [numbers(7, 5), *tables, numbers(4, 6)])
    assert found[1:-1] == [{n: str(n * n) for n in table["number"].to_pylist()} for table in tables]
    assert found[0] == {7: "it ended the model's process (exit code 3)", 5: "25"}
    assert found[-1] == {4: "16", 6: "it ended the model's process (SIGKILL)"}
    fragile.close()


class Faults:
    """Page faults of four large objects, one after the other, when the first has been there."""

    def __init__(self, context: StageContext) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        _ = b"x" * 2**26
        del _
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            _ = b"x" * 2**26  # 16,384 pages
            del _
        return pa.table({"number": [resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]})


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own variables")
def test_a_model_on_a_cpu_keeps_the_memory_of_a_tensor_for_the_next() -> None:
    isolated = IsolatedStage(StageContext(threads=1), Stage("faults", Faults))
    try:
        (found,) = isolated(numbers(1))
    finally:
        isolated.close()
    assert found["number"][0].as_py() < 1000
