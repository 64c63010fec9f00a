"""A writer frozen at any of its writes, whose OUTPUT another run takes over, loses, doubles and changes no row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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


def rows_of(folder: Path) -> list[tuple[str, Any]]:
    """(name, answer) of all rows that anybody finds in a folder of Parquet files."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        texts = table["text"].to_pylist() if "text" in table.schema.names else [None] * len(table)
        found += zip((Path(uri).name for uri in table["uri"].to_pylist()), texts, strict=True)
    return sorted(found)


@dataclass
class Case:
    """A job that is tormented.

    given: its settings, less those that `prepare(place)` returns after it has laid out what the job reads. grow: what
    happens to that before the other run takes over. whole: fails unless OUTPUT is what an unbroken run makes of it.
    results: the folder of rows, of which none counts twice. second: settings of the run that takes over. certain:
    whether OUTPUT is whole already when the frozen writer has ended.
    """

    job: str
    prepare: Callable[[Path], dict[str, Any]]
    grow: Callable[[Path], Any]
    whole: Callable[[Path], None]
    results: str = ""
    second: dict[str, Any] = field(default_factory=dict)
    certain: bool = True


def torment(runs: Runs, place: Path, case: Case, at: int, how: str, then: str) -> bool:
    """One frozen writer, from beginning to end; False where the run has no such write.

    then: `finished` or `killed`, what becomes of the run that takes over.
    """
    place.mkdir(parents=True)
    log, other = place / "log", place / "other"
    settings = case.prepare(place)
    out = Path(settings.get("output") or settings["out"])
    first = runs.start(case.job, settings, log, at, how)
    if (code := runs.wait(first)) is not None:
        assert code == 0, log.read_text()
        return False
    case.grow(place)
    second = runs.start(case.job, {**settings, **case.second}, other, 5 + 7 * at % 13 * (then == "killed"), then)
    code = runs.wait(second)
    assert code in ((-9, 0) if then == "killed" else (0,)), other.read_text()
    thaw(first)
    code, said = runs.wait(first), log.read_text()
    assert code in (0, 1, 2), said
    assert code == 0 or "another run took this OUTPUT over" in said or "another run is writing" in said, said
    rows = [each for info in generations.files(str(out / case.results)) for each in names(Path(info.uri))]
    assert max(Counter(rows).values(), default=1) == 1, f"what counts holds a row twice: {said}"
    if then == "finished" and case.certain and not case.second:
        case.whole(out)
    third = runs.start(case.job, settings, other)
    assert runs.wait(third) == 0, other.read_text()
    case.whole(out)
    assert {path.name for path in (out / "_state").iterdir()} <= {"generations", "work_list", "checkpoints"}
    return True


def names(part: Path) -> list[str]:
    """What tells the rows of a part apart."""
    table = pq.ParquetFile(part).read()
    key = next(name for name in ("caption_id", "row_id", "uri") if name in table.schema.names)
    return [str(each) for each in table[key].to_pylist()]


def torment_all(runs: Runs, place: Path, case: Case, step: int = 1) -> int:
    """Every `step`-th way to be frozen at a write; how many times a writer was."""
    frozen = 0
    ways = [(how, then) for how in ("before", "after") for then in ("finished", "killed")]
    for at in range(1, MOST):
        for number, (how, then) in enumerate(ways):
            if (4 * at + number + at // 4) % step:
                continue
            if not torment(runs, place / f"{at}-{how}-{then}", case, at, how, then):
                return frozen
            frozen += 1
    raise AssertionError("a run never ends")


def of_list(job: str, results: str) -> Case:
    """A list of files that are not there; with `list`, a stand-in answers its rows nevertheless."""

    def prepare(place: Path) -> dict[str, Any]:
        given = {"commit_rows": 6} if job == "list" else {}
        return {**given, "input": str(write_list(place / "list.csv", FILES)), "output": str(place / "out")}

    def whole(out: Path) -> None:
        """Every row once for whoever reads the folder, each with its own answer; nothing is left behind."""
        found = rows_of(out / results)
        assert Counter(name for name, _ in found) == Counter(f"{number:04d}.wav" for number in range(FILES + MORE))
        assert len({text for _, text in found}) == (FILES + MORE if results == "answers" else 1)
        told = json.loads((out / ("_run.json" if results == "answers" else "_manifest.json")).read_text())
        assert told["rows"] == FILES + MORE and told.get("status", "complete") == "complete"
        counted = {info.uri for info in generations.files(str(out / results))}
        assert {str(path) for path in (out / results).rglob("*") if path.is_file()} == counted

    return Case(job, prepare, lambda place: write_list(place / "list.csv", FILES + MORE), whole, results)


def test_some_writes_of_a_run(runs: Runs, tmp_path: Path) -> None:
    """Every ninth; all of them are in the long tests."""
    assert torment_all(runs, tmp_path, of_list("list", "answers"), 9) >= 6


@pytest.mark.long
@pytest.mark.parametrize(("job", "results"), [("list", "answers"), ("scan", "manifest")])
def test_every_write_of_a_run(runs: Runs, tmp_path: Path, job: str, results: str) -> None:
    """INPUT has grown when the other run takes over."""
    assert torment_all(runs, tmp_path, of_list(job, results)) >= 60


@pytest.mark.long
def test_every_write_of_a_compaction(runs: Runs, tmp_path: Path) -> None:
    """The other run begins anew, with files of another size."""
    case = of_list("list", "answers")
    source = case.prepare(tmp_path)
    assert runs.wait(runs.start("list", source, tmp_path / "log")) == 0

    def whole(out: Path) -> None:
        assert rows_of(out / "answers") == rows_of(tmp_path / "out" / "answers")

    def prepare(place: Path) -> dict[str, Any]:
        return {"input": source["output"], "output": str(place / "out"), "file_mb": 128, "overwrite": True}

    again = Case("compact", prepare, lambda _: None, whole, "answers", {"file_mb": 256})
    assert torment_all(runs, tmp_path / "compact", again) >= 40
