"""The run that `mats caption` and `mats embed-audio` share: work list → stages → part files.

    check ─ lease ─ scan ─ (all done? say so) ─ Ray ─ the job's stages ─ PartWriter ─ _run.json

The driver writes the parts, so what is durable is decided in one place (`output.parts`), and holds no
more than one part of rows at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.archive.headers import ScanCounts, Scanner, no_audio
from pipelines.archive.presence import InputGone
from pipelines.archive.work_list import WorkList, work_schema
from pipelines.cluster import session
from pipelines.cluster.plan import check_fits, make_plan, usable_cores
from pipelines.cluster.progress import Meter, Progress, peak_mb
from pipelines.cluster.stages import Stage, StageContext, check_stages, run_stages
from pipelines.data.embeddings import SIDECAR
from pipelines.data.inputs import Entry, Input
from pipelines.data.private_uris import share
from pipelines.output.folder import open_output
from pipelines.output.parts import PartWriter, read_done, reread_if_changed
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
    be answered. describe: what `_embeddings.json` is to say when the run has ended.
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

    KeyboardInterrupt ends it with status "interrupted", and InputGone is raised where INPUT goes away: what is done is
    kept.
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

        def described(result: RunResult) -> RunResult:
            if job.describe is not None:
                out.tell(SIDECAR, job.describe(result))
            return result

        try:
            work = WorkList(out.join("_state", "work_list"), inputs.own_schema, out=out)
            done = read_done(out, job.folder, work.total, settings.retry_errors or ())  # first: it misses a lost list
            seen, _ = scan_into(work, settings, job, inputs, report)
            done.grow(work.total)
        except InputGone:
            raise
        except SettingsError:
            out.forget()
            raise
        except KeyboardInterrupt:
            return described(RunResult("interrupted", settings.output, 0, 0))
        scanned, before, previous = time.time(), done.rows, out.read_run()

        def report_rows(stage: str) -> None:
            report(Progress(stage, done.rows, work.total, before, sum(done.errors.values()), done.seconds))

        def result(status: str, run: dict[str, Any], wall_s: float = 0.0) -> RunResult:
            new, errors = done.rows - before, dict(done.errors)
            begun_with = _other_input(previous, settings.input)
            told = RunResult(status, settings.output, work.total, new, errors, done.seconds, wall_s, run, begun_with)
            return described(told)

        if before == work.total and previous is not None and previous.get("status") == "complete":
            return result("complete_before", previous)
        places = {name: storage.public_uri(getattr(settings, name)) for name in ("input", "output", "model")}
        run = {
            "job": job.name,
            "status": "running",
            "run_id": out.run_id,
            "started": utc(started),
            "settings": settings.model_dump() | places,
            "identity": job.identity,
            "versions": versions(),
            "rows": work.total,
            "rows_before": before,
            "skipped": dict(seen.skipped.most_common()),
        }
        out.write_run(run)
        commit_rows = settings.commit_rows or MOST_COMMIT_ROWS
        commit_s = settings.commit_seconds or (math.inf if settings.commit_rows else COMMIT_S)
        writer = PartWriter(job.folder, out.run_id, done, commit_rows, commit_s, out.put_table)
        meter = Meter()
        status = "failed"
        try:
            if before < work.total:
                _run_on_ray(settings, job, work, writer, meter, run, report_rows)
            writer.flush()
            done = reread_if_changed(out, job.folder, done)
            status = "complete" if done.rows == work.total else "incomplete"
        except KeyboardInterrupt:
            writer.flush()
            status = "interrupted"
        except (session.RunFailed, InputGone):
            writer.flush()  # what came before is kept
            raise
        finally:
            ended = time.time()
            summary = meter.summary(scanned, ended, usable_cores())
            summary["stage_s"]["write_s"] = round(writer.seconds, 3)
            run.update(
                status=status,
                ended=utc(ended),
                rows_done=done.rows - writer.waiting_rows,
                rows_new=done.rows - before,
                errors=dict(sorted(done.errors.items())),
                audio_hours=round(done.seconds / 3600, 6),
                rows_incomplete=done.incomplete,
                lost_s=round(done.lost_s, 3),
                wall_s=round(ended - started, 3),
                scan_s=round(scanned - started, 3),
                rows_per_s=round((done.rows - before) / max(1e-9, ended - started), 3),
                parts_written=writer.parts,
                error_rate=round(sum(done.errors.values()) / done.rows, 6) if done.rows else 0.0,
                driver_peak_mb=peak_mb(),
                **summary,
            )
            out.write_run(run)
        report_rows("done")
        return result(status, run, time.time() - started)


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


def _run_on_ray(
    settings: RunSettings,
    job: Job,
    work: WorkList,
    writer: PartWriter,
    meter: Meter,
    run: dict[str, Any],
    report_rows: Callable[[str], None],
) -> None:
    """Run the stages on Ray and hand every row to the writer; where and how it ran goes into `run`."""
    report_rows("start")
    with session.ray_session(settings.address, settings.actors or 0) as resources:
        plan = make_plan(settings, work.total - writer.done.rows, job.model_bytes, resources)
        if not resources.own:
            check_fits(plan, resources)
        run.update(plan=asdict(plan), ray=session.describe_ray(resources))
        meter.publish(job.name, run["run_id"])
        context = StageContext(
            work.folder, run["run_id"], plan.decoder_workers, plan.threads, plan.batch_size, share(work.private)
        )
        shards = list(work.shards(writer.done.mask, plan.shard_rows))
        # note: closed, so that Ray's executor has stopped before Ray is shut down, which would end this process
        with closing(session.readable_errors(run_stages(shards, job.stages, plan, context))) as tables:
            for table in tables:
                table = work.presence.rows_to_keep(meter.count_block(table))
                meter.count_new(writer.add(table))
                report_rows("run")
        writer.flush()  # durable before Ray is shut down, which takes seconds
        meter.ended_at = time.time()
