"""A writer frozen at any of its writes, whose OUTPUT another run takes over, loses, doubles and changes no row."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mats_core.memory.santa import SantaMemory
from pipelines.data import generations
from tests.e2e.conftest import write_tones
from tests.e2e.freezing import Runs, thaw
from tests.training_world import make_world, values

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
    parts = generations.files(str(out / case.results)) if case.results else []
    rows = [each for info in parts for each in names(Path(info.uri))]
    assert max(Counter(rows).values(), default=1) == 1, f"what counts holds a row twice: {said}"
    if then == "finished" and case.certain and not case.second:
        case.whole(out)
    third = runs.start(case.job, settings, other)
    assert runs.wait(third) == 0, other.read_text()
    case.whole(out)
    known = {"generations", "work_list", "checkpoints", "data", "ray"}
    assert {path.name for path in (out / "_state").iterdir()} <= known
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
    assert torment_all(runs, tmp_path, of_list(job, results)) >= 50


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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small corpora, an encoder, an LLM, and nine sounds."""
    place = make_world(tmp_path_factory.mktemp("world"))
    write_tones(place / "tones", 9, 1.0)
    return place


def of_job(job: str, world: Path, address: str, model: str) -> Case:
    """A job on a Ray that is there already. What it makes is compared with `world`/JOB, the first OUTPUT made."""
    on_ray = {"address": address, "device": "cpu"}
    results = {"caption": "answers", "embed-audio": "embeddings", "embed-text": "embeddings"}.get(job, "")

    def prepare(place: Path) -> dict[str, Any]:
        out = str(place / "out")
        if job in ("caption", "embed-audio"):
            add_tones(place, range(6))
            given = {"input": str(place / "tones"), "model": model, "commit_rows": 2, "actors": 1, "output": out}
            return {**on_ray, **given, "deterministic": True}  # rows meet others when some are made again
        if job == "embed-text":
            given = {"corpora": [str(world / "one.jsonl")], "encoder": str(world / "encoder"), "bucket_records": 20}
            return {**on_ray, **given, "actors": 1, "output": out}
        if job == "build-memory":
            return {"address": address, "embeddings": str(world / "embedded"), "clusters": 4, "output": out}
        if job == "train":
            changes = {"workers": 1, "training": {"steps": 6}, "checkpoint_every": 2, "address": address}
            return values(world, out, **changes)
        given = {"benchmarks": "soundworld_labels", "limit": 3, "data": [str(world / "sets")], "actors": 1}
        return {**on_ray, **given, "out": out, "history": str(place / "history")}

    def add_tones(place: Path, which: Iterable[int]) -> None:
        (place / "tones").mkdir(exist_ok=True)
        for number in which:
            shutil.copy(world / "tones" / f"{number:04d}.wav", place / "tones")

    def grow(place: Path) -> None:
        if job in ("caption", "embed-audio"):
            add_tones(place, range(6, 9))

    def made(out: Path) -> Any:
        """What must be the same whoever made it."""
        if job == "train":
            return (out / "model" / "mapper.safetensors").read_bytes()
        if job == "build-memory":
            return SantaMemory.load(str(out)).fingerprint, (out / "captions.parquet").read_bytes()
        rows = pq.read_table(out / (results or "predictions")).to_pylist()
        if job == "evaluate":
            assert len(list((out.parent / "history" / "runs").iterdir())) == 1
            assert (out / "report.html").exists() and json.loads((out / "metrics.json").read_text())["answers"] == 3
            return sorted((row["item"], row["text"]) for row in rows)
        if job == "embed-text":
            return sorted((row["caption_id"], row["count"], row["embedding"]) for row in rows)
        return sorted((Path(row["uri"]).name, row.get("text"), row.get("windows")) for row in rows)

    def whole(out: Path) -> None:
        if not EXPECTED.get(job):
            EXPECTED[job] = made(out)
        assert made(out) == EXPECTED[job]

    return Case(job, prepare, grow, whole, results)


EXPECTED: dict[str, Any] = {}
"""Job → what an undisturbed run of it makes."""


@pytest.mark.long
@pytest.mark.parametrize("job", ["caption", "embed-audio", "embed-text", "build-memory", "train", "evaluate"])
def test_every_write_of_a_job_on_ray(
    runs: Runs, tmp_path: Path, world: Path, shared_ray: str, tiny_model_dir: str, job: str
) -> None:
    """One of the four ways to be frozen at every write of its driver; its workers write on meanwhile."""
    if job == "build-memory":
        embed = of_job("embed-text", world, shared_ray, tiny_model_dir).prepare(tmp_path)
        begun = runs.start("embed-text", {**embed, "output": str(world / "embedded")}, tmp_path / "log")
        assert runs.wait(begun) == 0, (tmp_path / "log").read_text()
    case = of_job(job, world, shared_ray, tiny_model_dir)
    (tmp_path / "undisturbed").mkdir()
    settings = case.prepare(tmp_path / "undisturbed")
    case.grow(tmp_path / "undisturbed")
    assert runs.wait(runs.start(job, settings, tmp_path / "log")) == 0, (tmp_path / "log").read_text()
    case.whole(Path(settings.get("output") or settings["out"]))
    step = int(os.environ.get("MATS_FREEZE_STEP", "4"))
    assert torment_all(runs, tmp_path, case, step) >= 1
