"""A writer frozen at any of its writes, whose OUTPUT another run takes over, loses, doubles and changes no row."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.data import generations
from tests.e2e.freezing import Runs, thaw

FILES, MORE = 20, 9
MOST = 400


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as runs:
        yield runs


def write_list(place: Path, files: int) -> Path:
    """A list of files that are not there, whose rows a stand-in answers nevertheless."""
    place.write_text("uri\n" + "".join(f"{number:04d}.wav\n" for number in range(files)))
    return place


def rows(folder: Path) -> list[tuple[str, Any]]:
    """(name, answer) of all rows that anybody finds in a folder of Parquet files."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        texts = table["text"].to_pylist() if "text" in table.schema.names else [None] * len(table)
        found += zip((Path(uri).name for uri in table["uri"].to_pylist()), texts, strict=True)
    return sorted(found)


def torment(
    runs: Runs, place: Path, job: str, at: int, how: str, then: str, results: str, given: dict[str, Any]
) -> bool:
    """One frozen writer, from beginning to end; False where the run has no such write.

    then: `finished` or `killed`, what becomes of the run that takes over. results: the folder of rows.
    """
    place.mkdir(parents=True)
    out, log = place / "out", place / "log"
    settings = {**given, "input": str(write_list(place / "list.csv", FILES)), "output": str(out)}
    first = runs.start(job, settings, log, at, how)
    if runs.wait(first) is not None:
        return False
    write_list(place / "list.csv", FILES + MORE)
    other = place / "other"
    second = runs.start(job, settings, other, 5 + 7 * at % 13 if then == "killed" else 0, "killed")
    code = runs.wait(second)
    assert code == (-9 if then == "killed" else 0), other.read_text()
    thaw(first)
    code, said = runs.wait(first), log.read_text()
    assert code in (0, 1, 2), said
    assert code == 0 or "LeaseLost: another run took this OUTPUT over" in said or "another run is writing" in said, said
    found = [info.uri for info in generations.files(str(out / results))]
    names = [name for uri in found for name in pq.ParquetFile(uri).read(["uri"])["uri"].to_pylist()]
    assert max(Counter(names).values(), default=1) == 1, "what counts holds a row twice"
    if then == "finished":
        whole(out, results)
    third = runs.start(job, settings, other)
    assert runs.wait(third) == 0, other.read_text()
    whole(out, results)
    return True


def whole(out: Path, results: str) -> None:
    """Every row once for whoever reads the folder, each with its own answer; nothing is left behind."""
    names = Counter(name for name, _ in rows(out / results))
    assert names == Counter(f"{number:04d}.wav" for number in range(FILES + MORE))
    answers = {text for _, text in rows(out / results)}
    assert len(answers) == (FILES + MORE if results == "answers" else 1)
    told = json.loads((out / ("_run.json" if results == "answers" else "_manifest.json")).read_text())
    assert told["rows"] == FILES + MORE and told.get("status", "complete") == "complete"
    allowed = {"generations", "work_list"}
    assert {path.name for path in (out / "_state").iterdir()} <= allowed
    counted = {info.uri for info in generations.files(str(out / results))}
    assert {str(path) for path in (out / results).rglob("*") if path.is_file()} == counted


def torment_all(runs: Runs, place: Path, job: str, results: str, given: dict[str, Any], step: int = 1) -> int:
    """Every `step`-th write; how many times a writer was frozen."""
    frozen = 0
    ways = [(how, then) for how in ("before", "after") for then in ("finished", "killed")]
    for at in range(1, MOST):
        for number, (how, then) in enumerate(ways):
            if (at + number) % step:
                continue
            if not torment(runs, place / f"{at}-{how}-{then}", job, at, how, then, results, given):
                return frozen
            frozen += 1
    raise AssertionError("a run never ends")


@pytest.mark.processes
def test_some_writes_of_a_run(runs: Runs, tmp_path: Path) -> None:
    """Every seventh; all of them are in the long tests."""
    assert torment_all(runs, tmp_path, "list", "answers", {"commit_rows": 6}, 7) >= 8


@pytest.mark.long
@pytest.mark.parametrize(
    ("job", "results", "given"), [("list", "answers", {"commit_rows": 6}), ("scan", "manifest", {})]
)
def test_every_write_of_a_run(runs: Runs, tmp_path: Path, job: str, results: str, given: dict[str, Any]) -> None:
    """INPUT has grown when the other run takes over."""
    assert torment_all(runs, tmp_path, job, results, given) >= 60
    assert os.listdir(tmp_path)
