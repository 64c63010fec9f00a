"""What `mats caption` would do: files, hours, chunks, and the time and GPU hours that a measured sample promises.

INPUT is listed and its headers are read as in a run; nothing is written. A sample of rows, drawn evenly over
all of them, is decoded and answered in this process, by the stages of a run.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mats_core import storage
from mats_core.model.needs import MemoryNeeds, read_needs
from pipelines.archive.caption import caption_job
from pipelines.archive.headers import ScanCounts
from pipelines.archive.run import Job, refuse_in_place, scan_into
from pipelines.archive.work_list import WorkList
from pipelines.cluster.plan import Resources, free_memory, make_plan, usable_cores
from pipelines.cluster.progress import Progress
from pipelines.cluster.stages import StageContext
from pipelines.data import generations, parquet
from pipelines.data.schemas import with_column
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.calling import by_name

SAMPLE_ROWS = 24
START_S = 15.0
"""Seconds until Ray and the model are there, roughly."""


@dataclass
class Estimate:
    """What a run would do and take.

    seen: the entries that OUTPUT does not know yet, beside `known_files` that it does; rows: to be answered; done: rows
    answered already. sample_rows, sample_audio_s: what was measured; per_row_s: seconds of a row, by stage. wall_s,
    core_hours and gpu_hours are None where no row could be measured, gpu_hours also without a GPU. needs: what the
    model takes, on a GPU where there is none to ask; cards: the GPUs here.
    """

    seen: ScanCounts
    known_files: int
    rows: int
    done: int
    sample_rows: int = 0
    sample_audio_s: float = 0.0
    per_row_s: dict[str, float] | None = None
    cores: int = 1
    gpus: int = 0
    actors: int = 1
    wall_s: float | None = None
    core_hours: float | None = None
    gpu_hours: float | None = None
    needs: MemoryNeeds | None = None
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """A GPU: free and whole memory in bytes, and how many answers it writes at once; 0: the model does not fit."""

    name: str
    free: int
    total: int
    slots: int


class _CountedWorkList(WorkList):
    """A work list that is counted, not written; `sample` is drawn evenly from the rows without an error."""

    def __init__(self, folder: str, own: pa.Schema) -> None:
        super().__init__(folder, own)
        self.sample: list[dict[str, Any]] = []
        self._drawn = 0
        self._random = random.Random(0)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Count rows, and offer those without an error to the sample."""
        for offset, row in enumerate(rows):
            row["row_id"] = self.total + offset
            if row["error_code"] is None:
                self.offer(row)
        self.total += len(rows)

    def offer(self, row: dict[str, Any]) -> None:
        """Keep a row with the chance that every row has (reservoir sampling)."""
        self._drawn += 1
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(row)
        elif (place := self._random.randrange(self._drawn)) < SAMPLE_ROWS:
            self.sample[place] = row


@by_name(CaptionSettings)
def run_dry(settings: CaptionSettings, progress: Callable[[Progress], None] | None = None) -> Estimate:
    """Scan, measure a sample, and multiply. Raises SettingsError as the run itself would."""
    report = progress or (lambda _: None)
    job, inputs = caption_job(settings)
    refuse_in_place(settings, inputs)
    folder = storage.join(settings.output, "_state", "work_list")
    before = done = 0
    if settings.overwrite or not storage.exists(settings.output):  # like a run that has not begun: nothing is there
        folder = storage.join(tempfile.gettempdir(), f"mats-dry-run-{random.getrandbits(64):x}")
    else:
        before = WorkList(folder).total
        parts = generations.files(storage.join(settings.output, job.folder))
        done = sum(parquet.row_count(info.uri) for info in parts)
    work = _CountedWorkList(folder, inputs.own_schema)
    seen, known = scan_into(work, settings, job, inputs, report)
    estimate = Estimate(seen, known, max(0, work.total - done), done, cores=usable_cores())
    _look_at_memory(settings, job, estimate)
    if not work.sample and before:
        for row in work.read(0, min(before, 4096)).to_pylist():
            if row["error_code"] is None:
                work.offer(row)
    fits = all(card.slots for card in estimate.cards)
    if estimate.rows and work.sample and fits:
        report(Progress("start", 0, estimate.rows))
        _measure(settings, job, work, estimate)
    return estimate


def _all_of(tables: Any) -> pa.Table:
    return tables if isinstance(tables, pa.Table) else pa.concat_tables(tables)


def _look_at_memory(settings: CaptionSettings, job: Job, estimate: Estimate) -> None:
    """Fill in what the model needs, and what of it the GPUs here have."""
    import torch

    from mats_core.device import card_memory

    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    decoding: dict[str, Any] = job.identity["decoding"]
    kept = settings.llm_dtype
    if kept == "auto":
        kept = "float32" if settings.device == "cpu" else "bfloat16"
    needs = read_needs(
        settings.model, settings.allow_parts, llm_dtype=kept, encoder_dtype=settings.encoder_dtype,
        mapper_dtype=settings.mapper_dtype, beams=decoding["beams"], max_new_tokens=decoding["max_new_tokens"],
    )  # fmt: skip
    estimate.needs = needs
    for number in range(torch.cuda.device_count() if on_gpu else 0):
        place = torch.device("cuda", number)
        free, total = card_memory(place) or (0, 0)
        estimate.cards.append(Card(torch.cuda.get_device_name(place), free, total, needs.slots(free)))


def _measure(settings: CaptionSettings, job: Job, work: _CountedWorkList, estimate: Estimate) -> None:
    """Answer the sample, a first time to warm up, and fill in what follows from it."""
    import torch

    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    estimate.gpus = torch.cuda.device_count() if on_gpu else 0
    resources = Resources(float(estimate.cores), float(estimate.gpus), free_memory(), own=True)
    plan = make_plan(settings, estimate.rows, job.model_bytes, resources)
    context = StageContext(work.folder, "", 1, 0 if on_gpu else 1, plan.batch_size, work.private.find)
    rows = pa.Table.from_pylist(work.sample, schema=work.schema)
    model, reader = job.stages[-1].make(context), job.stages[0].make(context)
    more = 1.0  # so much more sound than its sample has a row
    if job.rows.per == "file":
        lengths = [each or job.chunk_s for each in rows["duration_s"].to_pylist()]
        shortened = [min(each, job.chunk_s) for each in lengths]
        rows = with_column(rows, "duration_s", shortened, pa.float64())
        rows = with_column(rows, "last", [False] * len(rows), pa.bool_())
        more = sum(lengths) / sum(shortened)
    _all_of(model(reader.load(rows.slice(0, 2))))
    started = time.monotonic()
    found = _all_of(model(reader.load(rows)))
    took = {name: sum(found[f"_{name}_s"].to_pylist()) for name in ("decode", "embed", "answer")}
    rest = max(0.0, time.monotonic() - started - sum(took.values()))
    per_row = {
        "decode": took["decode"] * more / len(rows),
        "model": (took["embed"] * more + took["answer"] + rest) / len(rows),
    }
    estimate.sample_rows, estimate.sample_audio_s = len(rows), sum(found["decoded_s"].to_pylist())
    decode_s, model_s = (per_row[name] * estimate.rows for name in ("decode", "model"))
    estimate.per_row_s, estimate.actors = per_row, plan.actors
    estimate.core_hours = (decode_s + (0.0 if on_gpu else model_s)) / 3600
    if on_gpu:
        estimate.gpu_hours = model_s / 3600
        decoders = plan.decode_actors * plan.decoder_workers
        estimate.wall_s = START_S + max(model_s / plan.actors, decode_s / decoders)
    else:  # decoding and the model share the cores
        estimate.wall_s = START_S + (decode_s + model_s) / max(1, min(estimate.cores, plan.actors * plan.threads))
