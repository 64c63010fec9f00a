"""The run that `mats caption` and `mats embed-audio` share: work list → decode → model → part files.

    check ─ lease ─ scan ─ (all done? say so) ─ Ray ─ Decode actors ─ model actors ─ PartWriter ─ _run.json

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
from mats_core.errors import SettingsError, got_allowed
from pipelines.archive.scan import ScanCounts, Scanner
from pipelines.archive.work_list import WorkList
from pipelines.cluster.meter import Meter, peak_mb
from pipelines.cluster.session import (
    DECODER_CPUS,
    MODEL_CPUS,
    Plan,
    RunFailed,
    bounded_retries,
    check_device,
    check_fits,
    described,
    make_plan,
    pool,
    ray_session,
    readable_errors,
    usable_cores,
)
from pipelines.data.inputs import Entry, Input
from pipelines.data.private_uris import share
from pipelines.output.folder import open_output
from pipelines.output.parts import Done, PartWriter, read_done, reread_if_changed
from pipelines.output.record import utc, versions
from pipelines.settings.archive import RunSettings

MOST_COMMIT_ROWS = 20_000
COMMIT_S = 120.0


@dataclass
class Progress:
    """Where a run is. `stage`: wait (for another run's lease), scan, start, run, done. Seconds are of audio."""

    stage: str
    done: int = 0
    total: int = 0
    before: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass
class RunResult:
    """What a run did. `status`: complete, complete_before (there was nothing to do), interrupted, incomplete."""

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
    """What makes a run a caption or an embedding run."""

    name: str
    folder: str
    identity: dict[str, Any]
    chunk_s: float
    sample_rate: int
    model_bytes: int
    defaults: dict[str, str | None]
    embeddings: str | None
    check: Callable[[Entry], None] | None
    stage: type
    spec: Any
    front: tuple[type, tuple[Any, ...]] | None = None
    """In place of decoding: a class and its arguments after the work list's folder."""


def peek(source: Input, uri: str) -> Input:
    """The source with its first entry looked at; raises SettingsError when there is none."""
    first = next(source.entries, None)
    if first is None:
        raise got_allowed("input", storage.public_uri(uri), "a place with audio files in it")
    source.entries = chain([first], source.entries)
    return source


def run_rows(
    settings: RunSettings, job: Job, source: Input, progress: Callable[[Progress], None] | None = None
) -> RunResult:
    """Bring OUTPUT to the state where every row of the work list is done; raises SettingsError.

    KeyboardInterrupt ends it with status "interrupted": what is done is kept.
    """
    tell = progress or (lambda _: None)
    started = time.time()
    check_device(settings.device, settings.address)
    if source.kind in ("embeddings", "manifest") and storage.same_place(settings.input, settings.output):
        shown = storage.public_uri(settings.output)
        raise got_allowed("output", shown, f"another folder than INPUT, which holds {source.kind}")
    if settings.overwrite and job.check is not None:
        for entry in source.requests():  # before anything is removed
            job.check(entry)
    with open_output(
        settings.output,
        job.identity,
        results=job.folder,
        overwrite=settings.overwrite,
        waiting=lambda _: tell(Progress("wait")),
    ) as out:
        job.spec.run_id = out.run_id
        parts = out.join(job.folder)
        try:
            work = _scan(settings, job, source, tell)
            done = read_done(parts, work.total, settings.retry_errors or ())
        except SettingsError:
            out.forget()
            raise
        except KeyboardInterrupt:
            return RunResult("interrupted", settings.output, 0, 0)
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
                _stream(settings, job, work, done, writer, meter, run, tell)
            writer.flush()
            done = reread_if_changed(parts, done)
            status = "complete" if done.rows == work.total else "incomplete"
        except KeyboardInterrupt:
            writer.flush()
            status = "interrupted"
        except RunFailed:
            writer.flush()  # what came before is kept
            raise
        finally:
            _complete(run, status, started, scanned, done, before, writer, meter)
            out.write_run(run)
        tell(Progress("done", done.rows, work.total, before, sum(done.errors.values()), done.seconds))
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
    before = str((previous or {}).get("settings", {}).get("input") or now)
    return "" if storage.same_place(before, now) else before


def _scan(settings: RunSettings, job: Job, source: Input, tell: Callable[[Progress], None]) -> WorkList:
    work = WorkList(storage.join(settings.output, "_state", "work_list"), source.own_schema)

    def scanned(counts: ScanCounts) -> None:
        tell(Progress("scan", counts.files, 0, 0, sum(counts.errors.values()), counts.seconds))

    with Scanner(job.chunk_s, settings, settings.decoders) as scanner:
        work.extend(source, scanner, job.defaults, scanned, job.check)
    return work


def _shards(work: WorkList, done: Done, rows: int) -> Iterator[pa.Table]:
    from pipelines.archive.decode_stage import shard_table

    for first in range(0, work.total, rows):
        stop = min(first + rows, work.total)
        mask = done.mask[first:stop]
        if not mask.all():
            yield shard_table(first, stop, mask)


def _stream(
    settings: RunSettings,
    job: Job,
    work: WorkList,
    done: Done,
    writer: PartWriter,
    meter: Meter,
    run: dict[str, Any],
    tell: Callable[[Progress], None],
) -> None:
    """Run the stages on Ray and hand every row to the writer; where and how it ran goes into `run`."""
    before = done.rows
    tell(Progress("start", before, work.total, before, sum(done.errors.values()), done.seconds))
    with ray_session(settings.address, settings.actors or 0) as there:
        plan = make_plan(settings, work.total - before, job.model_bytes, there)
        if not there.own:
            check_fits(plan, there)
        run.update(plan=asdict(plan), ray=described(there))
        meter.publish(job.name)
        for table in readable_errors(_dataset(settings, job, work, done, plan)):
            table = meter.take(table)
            meter.kept(writer.add(table))
            tell(Progress("run", done.rows, work.total, before, sum(done.errors.values()), done.seconds))
        writer.flush()  # durable before Ray is shut down, which takes seconds
        meter.ended_at = time.time()


def _dataset(settings: RunSettings, job: Job, work: WorkList, done: Done, plan: Plan) -> Iterator[pa.Table]:
    import ray

    from pipelines.archive import decode_stage as decode
    from pipelines.settings.archive import LimitSettings

    job.spec.threads, job.spec.batch_size = plan.threads, plan.batch_size
    rows = ray.data.from_blocks(list(_shards(work, done, plan.shard_rows)))  # from_arrow: a task and 45 kB a shard
    front: Any
    arguments: tuple[Any, ...]
    if job.front is not None:
        front, arguments = job.front[0], (work.folder, *job.front[1])
    elif job.embeddings:
        front, arguments = decode.Fetch, (work.folder, job.embeddings)
    else:
        limits = LimitSettings(**settings.model_dump(include=set(LimitSettings.model_fields)))
        private = share(work.private)
        again = tuple(settings.retry_errors or ())
        arguments = (work.folder, plan.decoder_workers, job.sample_rate, limits, private, again)
        front = decode.Decode
    retries = bounded_retries(ray.data.Dataset.map_batches)
    rows = rows.map_batches(
        front,
        fn_constructor_args=arguments,
        batch_format="pyarrow",
        batch_size=None,
        compute=pool(plan.decode_actors, plan.decode_actors, plan.elastic),
        num_cpus=DECODER_CPUS,
        **retries,
    )
    rows = rows.map_batches(
        job.stage,
        fn_constructor_args=(job.spec,),
        batch_format="pyarrow",
        # The stage cuts blocks into batches itself, so an answer never waits for a block to fill. For GPUs Ray wants
        # a number, and joins blocks up to it.
        batch_size=plan.batch_size if plan.gpus_per_actor else None,
        compute=pool(plan.actors, plan.first_actors, plan.elastic),
        num_cpus=MODEL_CPUS,
        num_gpus=plan.gpus_per_actor or None,
        **retries,
    )
    # note: with prefetching a block is handed over when the next one is there, so it is durable that much later
    for block in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        if len(block):
            yield block


def _run_record(
    settings: RunSettings, job: Job, run_id: str, started: float, total: int, before: int
) -> dict[str, Any]:
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
        steady=meter.steady(last, usable_cores()),
        stage_s={**{k: round(v, 3) for k, v in meter.seconds.items()}, "write_s": round(writer.seconds, 3)},
        tokens=round(meter.counts["tokens"]),
        batch_fill=None if meter.batch_fill is None else round(meter.batch_fill, 4),
        error_rate=round(sum(done.errors.values()) / done.rows, 6) if done.rows else 0.0,
        driver_peak_mb=peak_mb(),
    )
