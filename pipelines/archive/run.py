"""The run that `mats caption` and `mats embed-audio` share: work list → stages → part files.

    check ─ lease ─ scan ─ (all done? say so) ─ Ray ─ the job's stages ─ PartWriter ─ _run.json

The driver writes the parts, so what is durable is decided in one place (`output.parts`), and holds no
more than one part of rows at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.headers import ScanCounts, Scanner, no_audio
from pipelines.archive.work_list import WorkList, shard_table, work_schema
from pipelines.cluster import session
from pipelines.cluster.meter import Meter, peak_mb
from pipelines.cluster.plan import check_fits, make_plan, usable_cores
from pipelines.cluster.progress import Progress
from pipelines.cluster.stages import Stage, StageContext, check_stages, run_stages
from pipelines.data.inputs import Entry, Input
from pipelines.data.private_uris import share
from pipelines.output.folder import open_output
from pipelines.output.parts import Done, PartWriter, read_done, reread_if_changed
from pipelines.output.record import utc, versions
from pipelines.settings.archive import RunSettings

MOST_COMMIT_ROWS = 20_000
COMMIT_S = 120.0


@dataclass
class RunResult:
    """What a run did.

    status: complete, complete_before (nothing was left to do), interrupted, incomplete. rows: of OUTPUT, `new_rows` of
    them by this run; errors: rows by error code; seconds: of audio; run: `_run.json`.
    """

    status: str
    output: str
    rows: int
    new_rows: int
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    wall_s: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)
    begun_with: str = ""
    """The INPUT of an earlier run into this OUTPUT, where it was another one."""

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
    be answered.
    """

    name: str
    folder: str
    identity: dict[str, Any]
    chunk_s: float
    model_bytes: int
    defaults: dict[str, str | None]
    stages: list[Stage]
    check: Callable[[Entry], None] | None = None


def check_not_empty(inputs: Input, uri: str) -> Input:
    """`inputs`, when there is an entry in it; raises SettingsError when there is none."""
    first = next(inputs.entries, None)
    if first is None:
        raise no_audio(uri)
    inputs.entries = chain([first], inputs.entries)
    return inputs


def run_rows(
    settings: RunSettings, job: Job, inputs: Input, progress: Callable[[Progress], None] | None = None
) -> RunResult:
    """Bring OUTPUT to the state where every row of the work list is done; raises SettingsError.

    KeyboardInterrupt ends it with status "interrupted": what is done is kept.
    """
    report = progress or (lambda _: None)
    started = time.time()
    check_stages(job.stages, work_schema(inputs.own_schema).names)
    session.check_device(settings.device, settings.address)
    if inputs.kind in ("embeddings", "manifest") and storage.same_place(settings.input, settings.output):
        shown = storage.public_uri(settings.output)
        raise SettingsError("output", f"{shown} is INPUT too, which holds {inputs.kind}", "choose another folder")
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
        parts = out.join(job.folder)
        try:
            work = WorkList(out.join("_state", "work_list"), inputs.own_schema)
            scan_into(work, settings, job, inputs, report)
            done = read_done(parts, work.total, settings.retry_errors or ())
        except SettingsError:
            out.forget()
            raise
        except KeyboardInterrupt:
            return RunResult("interrupted", settings.output, 0, 0)

        def report_rows(stage: str) -> None:
            report(Progress(stage, done.rows, work.total, before, sum(done.errors.values()), done.seconds))

        before = done.rows
        previous = out.read_run()
        begun_with = _other_input(previous, settings.input)
        if before == work.total and previous is not None and previous.get("status") == "complete":
            return RunResult(
                "complete_before",
                settings.output,
                work.total,
                0,
                dict(done.errors),
                done.seconds,
                run=previous,
                begun_with=begun_with,
            )
        run = _run_record(settings, job, out.run_id, started, work.total, before)
        out.write_run(run)
        scanned = time.time()
        writer = PartWriter(
            parts,
            out.run_id,
            done,
            settings.commit_rows or MOST_COMMIT_ROWS,
            settings.commit_seconds or (math.inf if settings.commit_rows else COMMIT_S),
            out.check,
        )
        meter = Meter()
        status = "failed"
        try:
            if before < work.total:
                _run_on_ray(settings, job, work, done, writer, meter, run, report_rows)
            writer.flush()
            done = reread_if_changed(parts, done)
            status = "complete" if done.rows == work.total else "incomplete"
        except KeyboardInterrupt:
            writer.flush()
            status = "interrupted"
        except session.RunFailed:
            writer.flush()  # what came before is kept
            raise
        finally:
            _complete(run, status, started, scanned, done, before, writer, meter)
            out.write_run(run)
        report_rows("done")
        return RunResult(
            status,
            settings.output,
            work.total,
            done.rows - before,
            dict(done.errors),
            done.seconds,
            time.time() - started,
            run,
            begun_with,
        )


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

    with Scanner(job.chunk_s, settings, settings.decoders) as scanner:
        return work.extend(inputs, scanner, job.defaults, report_scan, job.check)


def _shards(work: WorkList, done: Done, rows: int) -> Iterator[pa.Table]:
    """`rows` rows of the work list at a time, those that have unfinished ones."""
    for first in range(0, work.total, rows):
        stop = min(first + rows, work.total)
        mask = done.mask[first:stop]
        if not mask.all():
            yield shard_table(first, stop, mask)


def _run_on_ray(
    settings: RunSettings,
    job: Job,
    work: WorkList,
    done: Done,
    writer: PartWriter,
    meter: Meter,
    run: dict[str, Any],
    report_rows: Callable[[str], None],
) -> None:
    """Run the stages on Ray and hand every row to the writer; where and how it ran goes into `run`."""
    report_rows("start")
    with session.ray_session(settings.address, settings.actors or 0) as resources:
        plan = make_plan(settings, work.total - done.rows, job.model_bytes, resources)
        if not resources.own:
            check_fits(plan, resources)
        run.update(plan=asdict(plan), ray=session.describe_ray(resources))
        meter.publish(job.name)
        context = StageContext(
            work.folder, run["run_id"], plan.decoder_workers, plan.threads, plan.batch_size, share(work.private)
        )
        shards = list(_shards(work, done, plan.shard_rows))
        for table in session.readable_errors(run_stages(shards, job.stages, plan, context)):
            table = meter.count_block(table)
            meter.count_new(writer.add(table))
            report_rows("run")
        writer.flush()  # durable before Ray is shut down, which takes seconds
        meter.ended_at = time.time()


def _run_record(
    settings: RunSettings, job: Job, run_id: str, started: float, total: int, before: int
) -> dict[str, Any]:
    """What `_run.json` says of a run that has begun; `_complete` adds the rest."""
    shown = settings.model_dump()
    for name in ("input", "output", "model"):
        shown[name] = storage.public_uri(shown[name])
    return {
        "job": job.name,
        "status": "running",
        "run_id": run_id,
        "started": utc(started),
        "settings": shown,
        "identity": job.identity,
        "versions": versions(),
        "rows": total,
        "rows_before": before,
    }


def _complete(
    run: dict[str, Any],
    status: str,
    started: float,
    scanned: float,
    done: Done,
    before: int,
    writer: PartWriter,
    meter: Meter,
) -> None:
    """Fill in what is known at the end. Stage times are seconds of work, summed over processes."""
    ended = time.time()
    last = meter.ended_at or ended
    new = done.rows - before
    first = meter.first_at
    run.update(
        status=status,
        ended=utc(ended),
        rows_done=done.rows - writer.waiting_rows,
        rows_new=new,
        errors=dict(sorted(done.errors.items())),
        audio_hours=round(done.seconds / 3600, 6),
        wall_s=round(ended - started, 3),
        scan_s=round(scanned - started, 3),
        start_s=round((first or ended) - scanned, 3),
        busy_s=round(last - first, 3) if first else 0.0,
        rows_per_s=round(new / max(1e-9, ended - started), 3),
        parts_written=writer.parts,
        steady=meter.sustained_rate(last, usable_cores()),
        stage_s={**{k: round(v, 3) for k, v in meter.seconds.items()}, "write_s": round(writer.seconds, 3)},
        tokens=round(meter.counts["tokens"]),
        batch_fill=None if meter.batch_fill is None else round(meter.batch_fill, 4),
        error_rate=round(sum(done.errors.values()) / done.rows, 6) if done.rows else 0.0,
        driver_peak_mb=peak_mb(),
    )
