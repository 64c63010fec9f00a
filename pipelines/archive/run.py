"""The run that `mats caption` and `mats embed-audio` share: work list → stages → part files.

    check ─ lease ─ scan ─ (all done? say so) ─ the job's stages ─ PartWriter ─ _run.json

The stages run on Ray, or, for few rows, without (`cluster.execution`). The driver writes the parts, so what is durable
is decided in one place (`output.parts`), and holds no more than one part of rows at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.headers import Rowing, ScanCounts, Scanner, no_audio
from pipelines.archive.presence import InputGone
from pipelines.archive.work_list import WorkList, work_schema
from pipelines.cluster import session
from pipelines.cluster.execution import Here, run_stages
from pipelines.cluster.plan import Plan, check_fits, make_plan, usable_cores
from pipelines.cluster.progress import Meter, Progress, peak_mb
from pipelines.cluster.stages import Stage, StageContext, check_stages
from pipelines.data.embeddings import SIDECAR
from pipelines.data.inputs import Entry, Input
from pipelines.data.private_uris import FindUris, share
from pipelines.data.results import Rows
from pipelines.output.folder import Output, open_output
from pipelines.output.parts import PartWriter, read_done, reread_if_changed
from pipelines.settings.archive import RunSettings, ScanSettings

MOST_COMMIT_ROWS = 20_000
COMMIT_S = 120.0
FEW_ROWS = 50
"""So many rows or fewer are done without a Ray, whose start takes longer than they do."""


@dataclass
class RunResult(Rows):
    """What a run did; `to_pandas()` and `to_arrow()` give the rows of OUTPUT.

    status: complete, complete_before (nothing was left to do), interrupted, incomplete. rows: of OUTPUT, `new_rows` of
    them by this run; errors: rows by error code; seconds: of audio; run: `_run.json`; folder: of the rows, in OUTPUT.
    """

    status: str
    output: str
    rows: int
    new_rows: int
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    wall_s: float = 0.0
    run: dict[str, Any] = field(default_factory=dict, repr=False)
    begun_with: str = ""
    """The INPUT of an earlier run into this OUTPUT, where it was another one."""
    folder: str = field(default="answers", repr=False)

    def rows_at(self) -> str:
        """The folder of the rows."""
        return storage.join(self.output, self.folder)

    @property
    def error_rate(self) -> float:
        """Share of all rows that have an error code."""
        return sum(self.errors.values()) / self.rows if self.rows else 0.0


@dataclass
class Job:
    """What a run does with the rows of its work list.

    folder: of the part files in OUTPUT. identity: what must stay the same in one OUTPUT. chunk_s: seconds of a row.
    model_bytes: size of the model, by which actors are planned. defaults: the request of an entry that has none.
    stages: from the shards of the work list to finished rows. check: raises SettingsError for an entry that cannot
    be answered. describe: what `_embeddings.json` is to say when the run has ended. told: what `_run.json` says beside.
    rows: what a row is, where it is no minute.
    """

    name: str
    folder: str
    identity: dict[str, Any]
    chunk_s: float
    model_bytes: int
    defaults: dict[str, str | None]
    stages: list[Stage]
    check: Callable[[Entry], None] | None = None
    describe: Callable[[RunResult], dict[str, Any]] | None = None
    told: dict[str, str] = field(default_factory=dict)
    rows: Rowing = field(default_factory=Rowing)


def check_not_empty(inputs: Input, uri: str) -> Input:
    """`inputs`, when there is an entry in it; raises SettingsError when there is none."""
    first = next(inputs.entries, None)
    if first is None:
        raise no_audio(uri)
    inputs.entries = chain([first], inputs.entries)
    return inputs


def refuse_in_place(settings: RunSettings | ScanSettings, inputs: Input) -> None:
    """Raises SettingsError where results would lie among what they are of. Among sounds, a run of before goes on."""
    if not storage.same_place(settings.input, settings.output):
        return
    holds = inputs.kind if inputs.kind in ("embeddings", "manifest") else "sounds"
    if holds != "sounds" or not storage.is_dir(storage.join(settings.output, "_state")):
        shown = storage.public_uri(settings.output)
        raise SettingsError("output", f"{shown} is INPUT too, which holds {holds}", "choose another folder")


def run_rows(
    settings: RunSettings, job: Job, inputs: Input, progress: Callable[[Progress], None] | None = None
) -> RunResult:
    """Bring OUTPUT to the state where every row of the work list is done; raises SettingsError.

    KeyboardInterrupt ends it with status "interrupted", and InputGone is raised where INPUT goes away: what is done is
    kept.
    """
    report = progress or (lambda _: None)
    started = time.time()
    check_stages(job.stages, work_schema(inputs.own_schema).names)
    session.check_device(settings.device, settings.address)
    refuse_in_place(settings, inputs)
    if settings.overwrite and job.check is not None:
        for entry in inputs.requests():  # before anything is removed
            job.check(entry)
    with open_output(
        settings.output,
        job.identity,
        results=job.folder,
        overwrite=settings.overwrite,
        waiting=lambda _: report(Progress("wait")),
    ) as out:
        result = _Run(settings, job, out, report, started).to_its_end(inputs)
        if job.describe is not None:
            out.tell(SIDECAR, job.describe(result))
        return result


class _Run:
    """A run that holds its OUTPUT: reads the work list, has what is left of it done, and writes what comes."""

    def __init__(
        self, settings: RunSettings, job: Job, out: Output, report: Callable[[Progress], None], started: float
    ) -> None:
        self._settings, self._job, self._out, self._report, self._started = settings, job, out, report, started
        self._previous = out.read_run()
        self._was_complete = self._previous is not None and self._previous.get("status") == "complete"
        self._asks_for_ray = session.asks_for_ray(settings.address, settings.actors)
        self._meter = Meter()

    def to_its_end(self, inputs: Input) -> RunResult:
        """Do what is not done yet; see `run_rows`."""
        with Here() as here:
            try:
                seen = self._read(inputs, here)
            except InputGone:
                raise
            except SettingsError:
                self._out.forget()
                raise
            except KeyboardInterrupt:
                return RunResult("interrupted", self._settings.output, 0, 0, folder=self._job.folder)
            if self._left == 0 and self._previous is not None and self._was_complete:
                told = {name: self._previous.get(name) or type(value)() for name, value in self._gone.items()}
                if told != self._gone:
                    self._out.write_run(self._previous | self._gone)
                return self._result("complete_before", self._previous | self._gone)
            return self._do(seen, here)

    def _read(self, inputs: Input, here: Here) -> ScanCounts:
        """Bring the work list up to INPUT and read what is done of it; what the scan found new.

        Where INPUT has few files, models are loaded meanwhile, else Ray is imported.
        """
        folder = self._out.join("_state", "work_list")
        self._work = work = WorkList(folder, inputs.own_schema, out=self._out)
        again = self._settings.retry_errors or ()
        done = read_done(self._out, self._job.folder, work.total, again)  # first: it misses a lost list
        first = list(islice(inputs.entries, FEW_ROWS + 1))
        inputs.entries = chain(first, inputs.entries)
        done_before = self._previous is not None and self._previous.get("status") == "complete"
        if (
            len(first) <= FEW_ROWS
            and not done_before
            and not session.asks_for_ray(self._settings.address, self._settings.actors)
        ):
            here.start(self._job.stages, self._context_here())
        seen, _ = scan_into(work, self._settings, self._job, inputs, self._report)
        self._gone = self._what_is_gone()
        done.grow(work.total)
        self._scanned, self._before = time.time(), done.rows
        commit_rows = self._settings.commit_rows or MOST_COMMIT_ROWS
        commit_s = self._settings.commit_seconds or (math.inf if self._settings.commit_rows else COMMIT_S)
        self._writer = PartWriter(self._job.folder, self._out.run_id, done, commit_rows, commit_s, self._out.put_table)
        return seen

    def _what_is_gone(self) -> dict[str, Any]:
        """How many known files are gone from INPUT, and which rows are left out for it: those of `--prune`, as long as
        their files do not come back. Another INPUT than before says nothing about the files of that one."""
        left_out = (self._previous or {}).get("pruned") or []
        if _other_input(self._previous, self._settings.input):
            return {"gone": 0, "pruned": left_out}
        count, rows = self._work.gone()
        before = {row for first, last in left_out for row in range(first, last + 1)}
        kept = (
            rows
            if self._settings.prune
            else [[row, row] for first, last in rows for row in range(first, last + 1) if row in before]
        )
        return {"gone": count, "pruned": kept}

    @property
    def _left(self) -> int:
        return self._work.total - self._writer.done.rows

    def _do(self, seen: ScanCounts, here: Here) -> RunResult:
        """Answer what is left, and keep `_run.json`: as running first, with what came of it last."""
        run, writer = self._begun(seen), self._writer
        with self._out.recorded(run, self._started, self._summary, undo=False):  # the work list may have taken hours
            try:
                if self._left:
                    few = self._left <= FEW_ROWS and not self._asks_for_ray
                    with closing((self._tables_here if few else self._tables_on_ray)(here, run)) as tables:
                        for table in tables:
                            table = self._work.presence.rows_to_keep(self._meter.count_block(table))
                            self._meter.count_new(writer.add(table))
                            self._tell("run")
                writer.flush()
                writer.done = reread_if_changed(self._out, self._job.folder, writer.done)
                run["status"] = "incomplete" if self._left else "complete"
            except (KeyboardInterrupt, session.RunFailed, InputGone):
                writer.flush()  # what came before is kept
                raise
        self._tell("done")
        return self._result(run["status"], run, time.time() - self._started)

    def _context_here(self) -> StageContext:
        self._plan = make_plan(self._settings, FEW_ROWS, self._job.model_bytes, session.here())
        return self._context(self._plan, self._work.private.find)

    def _context(self, plan: Plan, find_uris: FindUris | None) -> StageContext:
        threads = (plan.decoder_workers, plan.threads, plan.batch_size)
        return StageContext(self._work.folder, self._out.run_id, *threads, find_uris)

    def _tables_here(self, here: Here, run: dict[str, Any]) -> Generator[pa.Table, None, None]:
        """What the stages make of the rows that are left, without Ray."""
        context = self._context_here()
        run.update(plan=asdict(self._plan), ray=None)
        self._tell("start")
        yield from here.run(self._shards(self._plan), self._job.stages, context)
        self._all_came()

    def _tables_on_ray(self, here: Here, run: dict[str, Any]) -> Generator[pa.Table, None, None]:
        """What the stages make of the rows that are left, on a Ray; where and how it ran goes into `run`."""
        here.close()
        self._tell("start")
        with session.ray_session(self._settings.address, self._settings.actors or 0) as resources:
            plan = make_plan(self._settings, self._left, self._job.model_bytes, resources)
            if not resources.own:
                check_fits(plan, resources)
            run.update(plan=asdict(plan), ray=session.describe_ray(resources))
            self._meter.publish(self._job.name, run["run_id"])
            context = self._context(plan, share(self._work.private))
            # note: closed, so that Ray's executor has stopped before Ray is shut down, which would end this process
            tables = run_stages(self._shards(plan), self._job.stages, plan, context)
            with closing(session.readable_errors(tables)) as readable:
                yield from readable
            self._all_came()

    def _all_came(self) -> None:
        """What came is durable before processes are ended, which may take seconds."""
        self._writer.flush()
        self._meter.ended_at = time.time()

    def _shards(self, plan: Plan) -> list[pa.Table]:
        return list(self._work.shards(self._writer.done.mask, plan.shard_rows))

    def _begun(self, seen: ScanCounts) -> dict[str, Any]:
        """`_run.json` of a run that has its work list."""
        places = {name: storage.public_uri(getattr(self._settings, name)) for name in ("input", "output", "model")}
        return {
            "job": self._job.name,
            "settings": self._settings.model_dump() | places,
            "identity": self._job.identity,
            **self._job.told,
            **self._gone,
            "rows": self._work.total,
            "rows_before": self._before,
            "skipped": dict(seen.skipped.most_common()),
        }

    def _summary(self) -> dict[str, Any]:
        """What came of the run, for `_run.json`."""
        ended, done, writer = time.time(), self._writer.done, self._writer
        wall_s, new = ended - self._started, done.rows - self._before
        summary = self._meter.summary(self._scanned, ended, usable_cores())
        summary["stage_s"]["write_s"] = round(writer.seconds, 3)
        return {
            "rows_done": done.rows - writer.waiting_rows,
            "rows_new": new,
            "errors": dict(sorted(done.errors.items())),
            "audio_hours": round(done.seconds / 3600, 6),
            "rows_incomplete": done.incomplete,
            "lost_s": round(done.lost_s, 3),
            "scan_s": round(self._scanned - self._started, 3),
            "rows_per_s": round(new / max(1e-9, wall_s), 3),
            "parts_written": writer.parts,
            "error_rate": round(sum(done.errors.values()) / done.rows, 6) if done.rows else 0.0,
            "driver_peak_mb": peak_mb(),
            **summary,
        }

    def _tell(self, stage: str) -> None:
        done = self._writer.done
        self._report(
            Progress(stage, done.rows, self._work.total, self._before, sum(done.errors.values()), done.seconds)
        )

    def _result(self, status: str, run: dict[str, Any], wall_s: float = 0.0) -> RunResult:
        done, output = self._writer.done, self._settings.output
        figures = (done.rows - self._before, dict(done.errors), done.seconds, wall_s)
        begun_with = _other_input(self._previous, self._settings.input)
        return RunResult(status, output, self._work.total, *figures, run, begun_with, self._job.folder)


def _other_input(previous: dict[str, Any] | None, now: str) -> str:
    """The INPUT of the run before this one, where it was another place than `now`; else an empty string."""
    before = str((previous or {}).get("settings", {}).get("input") or now)
    return "" if storage.same_place(before, now) else before


def scan_into(
    work: WorkList, settings: RunSettings, job: Job, inputs: Input, report: Callable[[Progress], None]
) -> tuple[ScanCounts, int]:
    """Append to the work list what it lacks of `inputs`; (what was added, how many entries it knew)."""

    def report_scan(counts: ScanCounts) -> None:
        report(Progress("scan", counts.files, 0, 0, sum(counts.errors.values()), counts.seconds))

    with Scanner(job.chunk_s, settings, settings.decoders, job.rows) as scanner:
        return work.extend(inputs, scanner, job.defaults, report_scan, job.check)
