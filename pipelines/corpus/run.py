"""Published sets → corpus records, on Ray Data.

    sets ─check_sets (a task a set)─▶ what is in them; what is wrong with them ends the run before anything is written
    sets ─read_sets (a task a set)─▶ blocks of clips ─write_blocks (tasks)─▶ part files

A block is the next so many clips in the order of the files, and its part holds their records: what a part holds depends
on the files, on what evaluation asks, on the writer and on the seed, and on nothing else. A part that is there is done.
The driver sees counts only.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.cluster.execution import bounded_retries
from pipelines.cluster.plan import Resources, usable_cores
from pipelines.cluster.progress import Progress, peak_mb
from pipelines.cluster.session import check_device
from pipelines.corpus import blocks
from pipelines.corpus.definition import CorpusSet, list_corpus_sets, load_corpus_set
from pipelines.corpus.reading import AskedClips, Tally, find_asked, fingerprint, missing, unchecked
from pipelines.corpus.writing.llm_writer import TEMPLATE, LlmFacts, instruction_mark, llm_facts
from pipelines.data import parquet
from pipelines.data.generations import counted
from pipelines.output.folder import Output, open_output
from pipelines.settings.calling import by_name
from pipelines.settings.corpus import CorpusSettings

SIDECAR, LEFT_OUT = "_corpus.json", "_left_out"
READ_CPUS, WRITE_CPUS = 0.5, 1.0
ACTOR_BYTES = 1.5e9
"""What an actor takes besides its LLM."""
SMALL_BLOCK = 1 << 16
"""Bytes from which Ray hands a table on: a block of clips goes to its writer at once."""
SMALLEST_BLOCK = 512
"""The same where an LLM writes: its blocks are small, and each is to be an actor's work of its own."""


@dataclass
class CorpusResult:
    """What `mats corpus` did. status: complete, complete_before (there was nothing to do), interrupted, dry_run. sets:
    what was found in each, by its name. unchecked: set → evaluation sets that could not be compared with it. run:
    OUT's `_run.json`."""

    status: str
    out: str
    sets: dict[str, Tally]
    unchecked: dict[str, list[str]]
    run: dict[str, Any] = field(default_factory=dict, repr=False)


@by_name(CorpusSettings)
def run_corpus(settings: CorpusSettings, progress: Callable[[Progress], None] | None = None) -> CorpusResult:
    """Write the records of the sets named into OUT.

    Raises SettingsError before anything is written: files that are missing or not as their publisher ships them, an OUT
    of another job, seed or writer, or one in which a set was begun from other files.
    """
    from pipelines.cluster.session import ray_session

    tell = progress or (lambda _: None)
    started = time.time()
    definitions = _definitions(settings)
    tell(Progress("scan"))
    asked = find_asked(settings.data)
    beside = {each.name: unchecked(each, settings.data, asked) for each in definitions}
    marks = {each.name: fingerprint(each, settings.data, asked) for each in definitions}
    if settings.dry_run:
        with ray_session(settings.address, _workers(settings)):
            found = _check(settings, list(marks), asked, tell)
        return CorpusResult("dry_run", settings.out, found, beside)
    check_device(settings.device, settings.address)
    llm = None if settings.writer == TEMPLATE else llm_facts(settings.writer)
    writer = f"{llm.fingerprint}, {instruction_mark()}" if llm else settings.writer
    identity = {"job": "corpus", "format": settings.format, "writer": writer, "seed": settings.seed}
    written = ("_run.json", SIDECAR, LEFT_OUT, *(f"{name}.json" for name in list_corpus_sets()), blocks.FOLDER)
    with open_output(
        settings.out, identity, results=blocks.FOLDER, overwrite=settings.overwrite, written=written
    ) as out:
        places = {"data": storage.public_uri(settings.data), "out": storage.public_uri(settings.out)}
        run: dict[str, Any] = {
            "job": "corpus", "settings": {**settings.model_dump(), **places}, "unchecked": beside,
        }  # fmt: skip
        work = _Corpus(settings, out, asked, marks, tell, llm)
        left = work.begin()
        if not left:
            return CorpusResult("complete_before", settings.out, work.found(), beside, out.read_run() or {})
        with (
            out.recorded(run, started, work.describe),
            ray_session(settings.address, _workers(settings)) as there,
        ):
            work.run(left, there)
        return CorpusResult(run["status"], settings.out, work.found(), beside, run)


def _definitions(settings: CorpusSettings) -> list[CorpusSet]:
    """The sets named, each once. Raises SettingsError for what is not given, not known or not there."""
    if not settings.names:
        raise SettingsError("names", "no set is named", f"name some of {', '.join(list_corpus_sets())}, or all")
    names = list_corpus_sets() if settings.names == ["all"] else list(dict.fromkeys(settings.names))
    definitions = [load_corpus_set(name) for name in names]
    for name, given in (("data", settings.data), ("out", settings.out or settings.dry_run)):
        if not given:
            raise SettingsError(name, "it is missing", f"name the folder with --{name}")
    absent = {each.name: missing(each, settings.data) for each in definitions}
    lacking = [f"{name}: {sentence}" for name, sentences in absent.items() for sentence in sentences]
    if lacking:
        shown = "; ".join(lacking[:5]) + (f"; and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise SettingsError("data", f"{storage.public_uri(settings.data)} lacks files: {shown}", "put them there")
    return definitions


def _workers(settings: CorpusSettings) -> int:
    return settings.workers or usable_cores()


@contextmanager
def _small_blocks(size: int) -> Iterator[None]:
    """Ray hands on what a task has made from `size` bytes, and not from 128 MB."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.target_max_block_size
    context.target_max_block_size = size
    try:
        yield
    finally:
        context.target_max_block_size = before


def _check(
    settings: CorpusSettings, names: list[str], asked: AskedClips, tell: Callable[[Progress], None]
) -> dict[str, Tally]:
    """What is in the sets; SettingsError for the first thing that is wrong."""
    import ray

    from pipelines.cluster.session import readable_errors

    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")  # few sets are no fault
    tables = [pa.table({"set": [name]}) for name in names]
    checked = ray.data.from_arrow(tables).map_batches(
        blocks.check_sets, fn_args=(settings.data, asked), batch_format="pyarrow", batch_size=None,
        num_cpus=WRITE_CPUS, concurrency=_workers(settings),
    )  # fmt: skip
    found: dict[str, Tally] = {}
    batches = (table for table in checked.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    for table in readable_errors(batches):
        for row in table.to_pylist():
            found[row["set"]] = Tally.of(json.loads(row["tally"]))
        tell(Progress("scan", len(found)))
    return {name: found[name] for name in names}


class _Corpus:
    """One run's way through Ray, and what OUT says of each set: `_corpus.json`."""

    def __init__(
        self,
        settings: CorpusSettings,
        out: Output,
        asked: AskedClips,
        marks: dict[str, str],
        tell: Callable[[Progress], None],
        llm: LlmFacts | None,
    ) -> None:
        self.settings, self.out, self.asked, self.marks, self.tell = settings, out, asked, marks, tell
        self.llm = llm
        self.block_records = blocks.LLM_BLOCK_RECORDS if llm else blocks.BLOCK_RECORDS
        self.told: dict[str, dict[str, Any]] = dict((out.lease.generation.told.get(SIDECAR) or {}).get("sets", {}))
        self.new = 0
        self.cpu_s = 0.0

    def found(self) -> dict[str, Tally]:
        """What OUT knows of the sets of this run."""
        known = ((name, self.told.get(name, {}).get("found")) for name in self.marks)
        return {name: Tally.of(told) for name, told in known if told}

    def begin(self) -> list[str]:
        """The sets of this run that are not complete. Raises SettingsError for one begun from other files."""
        for name, mark in self.marks.items():
            before = self.told.get(name)
            if before is not None and before["files"] != mark:
                problem = f"{storage.public_uri(self.out.uri)} has {name} from other files, or compared with others"
                raise SettingsError("out", problem, "choose another folder, or start anew with --overwrite")
        left = [name for name in self.marks if not self.told.get(name, {}).get("complete")]
        if self.settings.format == "json":
            for name in set(self.marks) - set(left):
                self._drop_parts(name, self._parts(name))  # of a run that was killed before it could
        return left

    def run(self, names: list[str], there: Resources) -> None:
        """Check, read and write the sets."""
        found = _check(self.settings, names, self.asked, self.tell)
        for name in names:
            told = found[name].told()
            self._name_left_out(name, told.pop("named"))
            self.told[name] = {"files": self.marks[name], "complete": False, "found": told}
        self._tell_sets()
        done = {name: sorted(self._parts(name)) for name in names}
        before = sum(parquet.row_count(uri) for name in names for uri in self._parts(name).values())
        total = sum(tally.records for tally in found.values())
        for row in self._written(names, done, there):
            self.out.check()
            self.new += row["records"]
            self.cpu_s += row["cpu_s"]
            self.tell(Progress("run", before + self.new, total, before))
        for name in names:
            self._complete(name, found[name])

    def _written(self, names: list[str], done: dict[str, list[int]], there: Resources) -> Iterator[dict[str, Any]]:
        """What was written of each block, as it is done."""
        import ray

        from pipelines.cluster.session import readable_errors

        self.tell(Progress("start"))
        given = (self.settings.data, self.asked, done, self.block_records)
        with _small_blocks(SMALLEST_BLOCK if self.llm else SMALL_BLOCK):
            sets = ray.data.from_arrow([pa.table({"set": [name]}) for name in names])
            clips = sets.map_batches(
                blocks.read_sets, fn_args=given, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS,
                concurrency=_workers(self.settings),
            )  # fmt: skip
            written = clips.map_batches(
                **self._writing(there), batch_format="pyarrow", batch_size=1, num_cpus=WRITE_CPUS
            )
            tables = written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for table in readable_errors(iter(tables)):
                yield from table.to_pylist()

    def _writing(self, there: Resources) -> dict[str, Any]:
        """What writes a block, for `map_batches`: tasks, or actors with an LLM, one a GPU where there are any."""
        from ray.data import ActorPoolStrategy, Dataset

        settings, given = self.settings, (self.out.uri, self.settings.seed, self.out.run_id)
        if self.llm is None:
            return {"fn": blocks.write_blocks, "fn_args": given, "concurrency": _workers(settings)}
        on_gpu = there.gpus >= 1 and settings.device != "cpu"
        fitting = int(0.6 * there.memory / (self.llm.bytes + ACTOR_BYTES)) if there.memory else 1
        actors = max(1, int(there.gpus) if on_gpu else min(_workers(settings), fitting))
        return {
            "fn": blocks.BlockWriter, "fn_constructor_args": (settings.writer, settings.device, *given),
            "compute": ActorPoolStrategy(size=actors), "num_gpus": 1.0 if on_gpu else None,
            **bounded_retries(Dataset.map_batches),
        }  # fmt: skip

    def _parts(self, name: str) -> dict[int, str]:
        """Number → URI of the parts of a set that are there."""
        folder = self.out.join(blocks.FOLDER)
        there = counted(folder, parquet.files(folder))
        mine = [info for info in there if info.path.startswith(f"{name}/")]
        numbers = {blocks.number_of_part(info.path.rpartition("/")[2]): info.uri for info in mine}
        if None in numbers:
            problem = f"{storage.public_uri(numbers[None])} is no part that `mats corpus` wrote"
            raise SettingsError("out", problem, "move this file away")
        return {number: uri for number, uri in sorted(numbers.items()) if number is not None}

    def _complete(self, name: str, tally: Tally) -> None:
        """Say that a set is whole, in the format that was asked for."""
        parts = self._parts(name)
        rows = sum(parquet.row_count(uri) for uri in parts.values())
        expected = -(-tally.used // blocks.clips_a_block(name, self.block_records))
        if list(parts) != list(range(expected)):
            raise RuntimeError(f"{name} has {len(parts)} parts of {expected}: its files changed while they were read")
        if self.settings.format == "json":
            blocks.write_json(self.out.uri, name, list(parts.values()))
        uris = list(parts.values())
        self.told[name] |= {"complete": True, "records": rows}
        if uris:
            self.told[name]["three_words"] = blocks.variety(uris[0])
        if self.llm:
            self.told[name]["written_by"] = blocks.written_by(uris)
        self._tell_sets()
        if self.settings.format == "json":
            self._drop_parts(name, parts)

    def _drop_parts(self, name: str, parts: dict[int, str]) -> None:
        self.out.drop({f"{blocks.FOLDER}/{name}/{uri.rpartition('/')[2]}": uri for uri in parts.values()})

    def _name_left_out(self, name: str, ids: dict[str, list[str]]) -> None:
        """Say in LEFT_OUT/NAME.json which clips evaluation asks."""
        if ids:
            text = json.dumps(ids, indent=1, ensure_ascii=False)
            storage.write_bytes(self.out.join(LEFT_OUT, f"{name}.json"), text.encode())

    def _tell_sets(self) -> None:
        self.out.tell(SIDECAR, {"sets": dict(sorted(self.told.items()))})

    def describe(self) -> dict[str, Any]:
        """What came of the run, for its record."""
        sets = {name: self.told[name] for name in self.marks if name in self.told}
        records = sum(each.get("records", 0) for each in sets.values())
        figures = {"write_cpu_s": round(self.cpu_s, 3), "driver_peak_mb": peak_mb()}
        return {"sets": sets, "records": records, "records_new": self.new, **figures}
