"""What a run measures of itself, out of the columns that the stages add to every block."""

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
MOMENTS = ("decoded", "began", "ready")


@dataclass
class _Block:
    rows: int
    audio_s: float
    decode_cpu_s: float
    decoded_at: float
    began_at: float
    ready_at: float


class Meter:
    """Counts the blocks of a run: seconds of work by stage, tokens, and when each block was worked on."""

    def __init__(self) -> None:
        self.seconds = {f"{name}_s": 0.0 for name in STAGES}
        self.counts = dict.fromkeys(COUNTS, 0.0)
        self.ended_at = 0.0  # when the last row was durable (epoch seconds); 0 before that
        self._blocks: list[_Block] = []
        self._counters: Counters | None = None

    def publish(self, job: str) -> None:
        """Count in Prometheus too from now on; a Ray must be connected."""
        self._counters = Counters(job)

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
        last = {name: table[f"_{name}_at"][0].as_py() for name in MOMENTS if f"_{name}_at" in table.schema.names}
        spent = {name: _sum(table, f"_{name}_s") for name in STAGES}
        counted = {name: _sum(table, f"_{name}") for name in COUNTS}
        for name, value in spent.items():
            self.seconds[f"{name}_s"] += value
        for name, value in counted.items():
            self.counts[name] += value
        if self._counters is not None:
            self._counters.add_work(spent, counted)
        self._blocks.append(
            _Block(
                len(table),
                pc.sum(table["decoded_s"]).as_py() or 0.0,
                _sum(table, "_decode_cpu_s"),
                *(last.get(name, 0.0) for name in MOMENTS),
            )
        )
        return table.drop_columns([name for name in table.schema.names if name.startswith("_")])

    def count_new(self, table: pa.Table) -> None:
        """Count, for Prometheus, rows that no earlier block had."""
        if self._counters is not None and len(table):
            self._counters.add_rows(len(table), _sum(table, "decoded_s"), count_errors(table["error_code"]))

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
        rows = sum(block.rows for block in counted)
        audio = sum(block.audio_s for block in counted)
        return {
            "rows": rows,
            "seconds": round(seconds, 3),
            "rows_per_s": round(rows / seconds, 3),
            "real_time_factor": round(audio / seconds, 2),
        }


class Counters:
    """Prometheus counters of one run, made when a Ray is connected: each of its nodes serves them on its metrics port.

    | name | labels | |
    |---|---|---|
    | mats_clips_total | job | rows that were new, each counted once |
    | mats_audio_seconds_total | job | seconds of sound in them |
    | mats_errors_total | job, code | rows with an error |
    | mats_tokens_total | job | tokens the LLM wrote |
    | mats_stage_seconds_total | job, stage | seconds of work in decode, embed, answer, over all processes |
    | mats_batch_asked_total | job | questions put to the LLM |
    | mats_batch_places_total | job | places in the batches they went in; asked / places is the fill |
    | mats_batch_fill | job | that ratio for the newest block |

    The driver counts, because it alone knows which rows are new. Ray puts `ray_` before the names.
    """

    def __init__(self, job: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._job = {"job": job}

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counter(f"mats_{name}_total", text, tag_keys=("job", *labels))

        self._clips = counter("clips", "rows that were new")
        self._audio = counter("audio_seconds", "seconds of sound in new rows")
        self._errors = counter("errors", "new rows with an error, by code", "code")
        self._tokens = counter("tokens", "tokens the LLM wrote")
        self._stages = counter("stage_seconds", "seconds of work, over all processes", "stage")
        self._asked = counter("batch_asked", "questions put to the LLM")
        self._places = counter("batch_places", "places in the batches of the LLM")
        self._fill = Gauge("mats_batch_fill", "share of places that held a question, newest block", tag_keys=("job",))

    def add_rows(self, count: int, audio_s: float, errors: dict[str, int]) -> None:
        """New rows, their seconds of sound, and how many of them have which error code."""
        self._clips.inc(count, self._job)
        if audio_s > 0:
            self._audio.inc(audio_s, self._job)
        for code, number in errors.items():
            self._errors.inc(number, {**self._job, "code": code})

    def add_work(self, seconds: dict[str, float], counts: dict[str, float]) -> None:
        """Work on one block: seconds by stage; tokens, asked and places."""
        for stage, spent in seconds.items():
            if spent > 0:
                self._stages.inc(spent, {**self._job, "stage": stage})
        for counter, name in ((self._tokens, "tokens"), (self._asked, "asked"), (self._places, "places")):
            if counts.get(name, 0) > 0:
                counter.inc(counts[name], self._job)
        if counts.get("places", 0) > 0:
            self._fill.set(counts["asked"] / counts["places"], self._job)


def _sum(table: pa.Table, name: str) -> float:
    return float(pc.sum(table[name]).as_py() or 0.0) if name in table.schema.names else 0.0


def peak_mb() -> float:
    """Most memory this process has held at once, in MB (10^6 bytes); what its parent held does not count."""
    status = Path("/proc/self/status")
    if status.exists():
        # note: not getrusage, whose peak a process inherits from the one that started it
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    scale = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6, 1)
