"""Stand-ins that wait as long as a GPU would, run by the real pipeline: work list, lease, Ray, parts.

An answer is a hash of what was heard, so a row that was mixed up or decoded wrongly shows.
Run as a module it is the driver that `mats benchmark chaos` kills: one JSON argument, see `main`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from pipelines.archive.run import Job, RunResult, run_rows
from pipelines.archive.stages import ShardStage, decode_stage
from pipelines.cluster.plan import DECODER_CPUS, MODEL_CPUS
from pipelines.cluster.progress import Progress
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data.inputs import open_input
from pipelines.data.schemas import dropped_columns, timed, with_column, with_output
from pipelines.settings.archive import RunSettings

RATE, CHUNK_S = 16_000, 60.0


@dataclass
class Waits:
    """Seconds of waiting a row. `slow`: factor on a node that has the resource `slow_node`."""

    row_s: float = 0.02
    decode_s: float = 0.0
    slow: float = 1.0


class StandIn:
    """A model stage without a model. Waits `row_s` a row, as a GPU would work; the CPU does nothing."""

    def __init__(self, context: StageContext, waits: Waits) -> None:
        self.run_id = context.run_id
        self.ready_at = time.time()
        self._row_s = waits.row_s * (waits.slow if waits.slow != 1.0 and _on_slow_node() else 1.0)

    def __call__(self, rows: pa.Table) -> pa.Table:
        began, started = time.time(), time.monotonic()
        sounds = rows["pcm"].to_pylist() if "pcm" in rows.schema.names else rows["uri"].to_pylist()
        time.sleep(self._row_s * len(rows))
        texts = [None if sound is None else _digest(sound) for sound in sounds]
        values = {
            "text": texts,
            "segments": [None] * len(rows),
            "model_fingerprint": ["stand-in"] * len(rows),
            "run_id": [self.run_id] * len(rows),
        }
        rows = with_output(rows, "caption", None, values)
        return timed(
            rows,
            answer_s=time.monotonic() - started,
            tokens=10.0 * len(rows),
            asked=float(len(rows)),
            places=32.0,
            began_at=began,
            ready_at=self.ready_at,
        )


class WaitingDecode(ShardStage):
    """Decoding replaced by waiting `decode_s` a row; no sound travels."""

    def __init__(self, context: StageContext, decode_s: float) -> None:
        super().__init__(context)
        self._decode_s = decode_s

    def load(self, rows: pa.Table) -> pa.Table:
        """`rows` as if a minute of each had been decoded."""
        started = time.monotonic()
        time.sleep(self._decode_s * len(rows))
        rows = with_column(rows, "decoded_s", [CHUNK_S] * len(rows), pa.float64())
        return timed(rows, decode_s=time.monotonic() - started, decoded_at=time.time())


def _digest(sound: bytes | str) -> str:
    return hashlib.blake2b(sound if isinstance(sound, bytes) else sound.encode(), digest_size=12).hexdigest()


def _on_slow_node() -> bool:
    import ray

    here = ray.get_runtime_context().get_node_id()
    return any(n["NodeID"] == here and "slow_node" in n["Resources"] for n in ray.nodes())


def run_stand_in(
    settings: RunSettings,
    waits: Waits,
    real_decoding: bool = True,
    progress: Callable[[Progress], None] | None = None,
    name: str = "stand-in",
) -> RunResult:
    """The run of `mats caption` with stand-ins for the model, and for decoding; `name` labels its counters."""
    job = Job(
        name=name,
        folder="answers",
        identity={"job": "stand-in"},
        chunk_s=CHUNK_S,
        model_bytes=0,
        defaults={"task": "caption", "question": None, "tag": None},
        stages=[
            decode_stage(settings, RATE)
            if real_decoding
            else Stage("wait", WaitingDecode, (waits.decode_s,), writes=("decoded_s",), cpus=DECODER_CPUS),
            Stage(
                "stand-in",
                StandIn,
                (waits,),
                reads=("uri",),
                writes=("text", "segments", "model_fingerprint", "run_id"),
                drops=dropped_columns("caption", None),
                cpus=MODEL_CPUS,
                gpus=1.0,
            ),
        ],
    )
    return run_rows(settings, job, open_input(settings.input, settings.schemes), progress)


def main() -> int:
    """`python -m jobs.benchmarks.stand_in '{"settings": {…}, "waits": {…}}'`: exit code 0 when complete."""
    given = json.loads(sys.argv[1])
    # note: classes of a module that runs as __main__ do not travel to workers
    from jobs.benchmarks import stand_in

    result = stand_in.run_stand_in(RunSettings(**given["settings"]), stand_in.Waits(**given["waits"]))
    print(json.dumps({"status": result.status, "new_rows": result.new_rows}))
    return 0 if result.status in ("complete", "complete_before") else 1


if __name__ == "__main__":
    sys.exit(main())
