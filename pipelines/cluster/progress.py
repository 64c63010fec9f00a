"""How far a run is, for whoever started it; what it measures of itself, for `_run.json` and Prometheus."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.output.parts import count_errors

STAGES = ("decode", "embed", "answer")
COUNTS = ("tokens", "asked", "places")
"""Tokens written; questions put to the LLM; places for questions in the batches they went in."""
COUNTERS = {
    "clips": "rows that were new",
    "audio_seconds": "seconds of sound in new rows",
    "errors": "new rows with an error, by code",
    "tokens": "tokens the LLM wrote",
    "stage_seconds": "seconds of work, over all processes",
    "batch_asked": "questions put to the LLM",
    "batch_places": "places in the batches of the LLM",
}
"""What Prometheus is told: `mats_<name>_total` with the labels `job` and `run_id`; errors by `code`, stage_seconds by
`stage`. The gauge mats_batch_fill is batch_asked / batch_places of the newest block. Ray puts `ray_` before the names,
and each node serves them on its metrics port."""
LABELS = {"errors": "code", "stage_seconds": "stage"}


@dataclass
class Progress:
    """Where a run is; a pipeline calls its `progress` argument with one whenever that changes.

    stage: wait (another run holds the lease of OUTPUT), scan, start (Ray and the models), replay (`mats adapt`), run,
    done. done: rows that are finished, `before` of them by earlier runs, `errors` of them with an error code; total:
    rows there are, 0 while they are still being counted. seconds: of audio in the finished rows.
    """

    stage: str
    done: int = 0
    total: int = 0
    before: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass
class _Block:
    rows: int
    audio_s: float
    decode_cpu_s: float
    decoded_at: float
    began_at: float
    ready_at: float


class Meter:
    """Counts the blocks of a run by the columns that the stages add: seconds of work by stage, tokens, and when each
    block was worked on. The driver counts, because it alone knows which rows are new."""

    def __init__(self) -> None:
        self.seconds = {f"{name}_s": 0.0 for name in STAGES}
        self.counts = dict.fromkeys(COUNTS, 0.0)
        self.ended_at = 0.0  # when the last row was durable (epoch seconds); 0 before that
        self._blocks: list[_Block] = []
        self._counters: dict[str, Any] = {}
        self._job: dict[str, str] = {}

    def publish(self, job: str, run_id: str) -> None:
        """Count in Prometheus too from now on; a Ray must be connected."""
        from ray.util.metrics import Counter, Gauge

        self._job = {"job": job, "run_id": run_id}
        for name, text in COUNTERS.items():
            labels = (*self._job, LABELS[name]) if name in LABELS else tuple(self._job)
            self._counters[name] = Counter(f"mats_{name}_total", text, tag_keys=labels)
        text = "share of places that held a question, newest block"
        self._counters["batch_fill"] = Gauge("mats_batch_fill", text, tag_keys=tuple(self._job))

    def _publish(self, name: str, value: float, **labels: str) -> None:
        if self._counters and value > 0:
            self._counters[name].inc(value, {**self._job, **labels})

    @property
    def batch_fill(self) -> float | None:
        """Share of the places in the LLM's batches that held a question; None before the first."""
        return self.counts["asked"] / self.counts["places"] if self.counts["places"] else None

    @property
    def first_at(self) -> float:
        """When the model began with its first block (epoch seconds); 0 before that."""
        return min((block.began_at for block in self._blocks), default=0.0)

    def count_block(self, table: pa.Table) -> pa.Table:
        """Count a block of rows with the measures that stages added (`timed`); returns it without them."""
        for name in STAGES:
            spent = _sum(table, f"_{name}_s")
            self.seconds[f"{name}_s"] += spent
            self._publish("stage_seconds", spent, stage=name)
        counted = {name: _sum(table, f"_{name}") for name in COUNTS}
        for name, value in counted.items():
            self.counts[name] += value
            self._publish(name if name == "tokens" else f"batch_{name}", value)
        if self._counters and counted["places"] > 0:
            self._counters["batch_fill"].set(counted["asked"] / counted["places"], self._job)
        moments = (f"_{name}_at" for name in ("decoded", "began", "ready"))
        at = (table[name][0].as_py() if name in table.schema.names else 0.0 for name in moments)
        self._blocks.append(_Block(len(table), _sum(table, "decoded_s"), _sum(table, "_decode_cpu_s"), *at))
        return table.drop_columns([name for name in table.schema.names if name.startswith("_")])

    def count_new(self, table: pa.Table) -> None:
        """Count, for Prometheus, rows that no earlier block had."""
        self._publish("clips", len(table))
        self._publish("audio_seconds", _sum(table, "decoded_s"))
        for code, number in count_errors(table["error_code"]).items():
            self._publish("errors", number, code=code)

    def summary(self, scanned: float, ended: float, cores: int) -> dict[str, Any]:
        """Of a run that had its work list at `scanned` and is over at `ended` (epoch seconds), for `_run.json`. Stage
        times are seconds of work, summed over processes."""
        last, first = self.ended_at or ended, self.first_at
        return {
            "start_s": round((first or ended) - scanned, 3), "busy_s": round(last - first, 3) if first else 0.0,
            "steady": self.sustained_rate(last, cores),
            "stage_s": {name: round(value, 3) for name, value in self.seconds.items()},
            "tokens": round(self.counts["tokens"]),
            "batch_fill": None if self.batch_fill is None else round(self.batch_fill, 4),
        }  # fmt: skip

    def sustained_rate(self, ended: float, cores: int) -> dict[str, float]:
        """Throughput once all model actors are ready, as a long run has it; {} before the first block.

        Counted are the blocks that the model began after that, over the seconds from then to `ended` (epoch). Where
        such a block was decoded earlier, the CPU time of that is added, as if all `cores` had spent it. rows,
        seconds, rows_per_s; real_time_factor: seconds of audio a second.
        """
        if not self._blocks:
            return {}
        ready = max(block.ready_at for block in self._blocks)
        counted = [block for block in self._blocks if block.began_at >= ready]
        early = sum(block.decode_cpu_s for block in counted if block.decoded_at < ready)
        seconds = ended - ready + early / max(1, cores)
        rows, audio = sum(block.rows for block in counted), sum(block.audio_s for block in counted)
        rates = {"rows_per_s": round(rows / seconds, 3), "real_time_factor": round(audio / seconds, 2)}
        return {"rows": rows, "seconds": round(seconds, 3), **rates}


def _sum(table: pa.Table, name: str) -> float:
    return float(pc.sum(table[name]).as_py() or 0.0) if name in table.schema.names else 0.0


def peak_mb() -> float:
    """Most memory this process has held at once, in MB (10^6 bytes); what its parent held does not count."""
    status = Path("/proc/self/status")
    # note: not getrusage, whose peak a process inherits from the one that started it
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    scale = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6, 1)
