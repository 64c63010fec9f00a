"""`mats benchmark scale`: throughput on 1, 2, 4 and 8 nodes, with a model and decoding that only wait.

The nodes are raylets on this machine with virtual CPUs and GPUs (ray.cluster_utils.Cluster). Work list, lease,
Ray graph and part files are the real ones. What is measured is the design and this machine's overhead, no model.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psutil import process_iter

from pipelines.archive.run import Job, RunResult, run_rows
from pipelines.archive.stages import ShardStage, decode_stage
from pipelines.cluster.plan import DECODER_CPUS, MODEL_CPUS
from pipelines.cluster.progress import Progress
from pipelines.cluster.stages import Stage, StageContext
from pipelines.data.inputs import open_input
from pipelines.data.schemas import MANIFEST_SCHEMA, dropped_columns, timed, with_column, with_output
from pipelines.settings.archive import RunSettings

NODE = {"num_cpus": 3, "num_gpus": 1, "object_store_memory": 150_000_000}
WINDOW = (0.35, 0.9)
"""The busy window: from this share of the rows to that one, when all actors are at work."""
SLOW = 4.0
RATE, CHUNK_S = 16_000, 60.0


@dataclass
class Waits:
    """Seconds of waiting a row. `slow`: factor on a node that has the resource `slow_node`."""

    row_s: float = 0.02
    decode_s: float = 0.0
    slow: float = 1.0


class WaitingModel:
    """A model stage without a model. Waits `row_s` a row, as a GPU would work; the CPU does nothing."""

    def __init__(self, context: StageContext, waits: Waits) -> None:
        self.run_id = context.run_id
        self.ready_at = time.time()
        self._row_s = waits.row_s * (waits.slow if waits.slow != 1.0 and _on_slow_node() else 1.0)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with an answer each, and the measurements of a model stage."""
        began, started = time.time(), time.monotonic()
        texts = self.texts(rows)
        time.sleep(self._row_s * len(rows))
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

    def texts(self, rows: pa.Table) -> list[str | None]:
        """The answer of each row; None where there is no sound."""
        return ["waited"] * len(rows)


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


def _on_slow_node() -> bool:
    import ray

    here = ray.get_runtime_context().get_node_id()
    return any(n["NodeID"] == here and "slow_node" in n["Resources"] for n in ray.nodes())


def run_waiting(
    settings: RunSettings,
    waits: Waits,
    progress: Callable[[Progress], None] | None = None,
    *,
    name: str = "waiting",
    model: type[WaitingModel] = WaitingModel,
    decodes: bool = False,
) -> RunResult:
    """The run of `mats caption` with a model that waits, and decoding too unless `decodes`; `name` labels counters."""
    job = Job(
        name=name,
        folder="answers",
        identity={"job": name},
        chunk_s=CHUNK_S,
        model_bytes=0,
        defaults={"task": "caption", "question": None, "tag": None},
        stages=[
            decode_stage(settings, RATE)
            if decodes
            else Stage("wait", WaitingDecode, (waits.decode_s,), writes=("decoded_s",), cpus=DECODER_CPUS),
            Stage(
                "stand-in",
                model,
                (waits,),
                reads=("pcm",) if decodes else (),
                writes=("text", "segments", "model_fingerprint", "run_id"),
                drops=dropped_columns("caption", None),
                cpus=MODEL_CPUS,
                gpus=1.0,
            ),
        ],
    )
    return run_rows(settings, job, open_input(settings.input, settings.schemes), progress)


@dataclass
class Watched:
    """What was seen of a run: (seconds, rows done), and (seconds, live model actors)."""

    done: list[tuple[float, int]] = field(default_factory=list)
    actors: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, total: int) -> float:
        """Rows a second in the busy window."""
        first = next(each for each in self.done if each[1] >= WINDOW[0] * total)
        last = next(each for each in self.done if each[1] >= WINDOW[1] * total)
        return (last[1] - first[1]) / max(1e-9, last[0] - first[0])


def write_manifest(folder: Path, rows: int) -> str:
    """A manifest of `rows` minutes that are nowhere; nothing reads them."""
    columns: dict[str, Any] = {name: pa.nulls(rows, MANIFEST_SCHEMA.field(name).type) for name in MANIFEST_SCHEMA.names}
    numbers = [f"{i:08d}" for i in range(rows)]
    columns["chunk_id"] = pa.array(numbers)
    columns["uri"] = pa.array([f"{folder}/sounds/{number}.flac" for number in numbers])
    columns["start_s"] = pa.array([0.0] * rows)
    columns["duration_s"] = pa.array([CHUNK_S] * rows)
    (folder / "manifest").mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=MANIFEST_SCHEMA), folder / "manifest" / "part-0.parquet")
    (folder / "_manifest.json").write_text("{}")
    return str(folder)


def start_cluster(nodes: int, slow: int = 0) -> Any:
    """A head without CPUs and `nodes` workers, `slow` of them with the resource slow_node; this process joins it."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 0, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for index in range(nodes):
        extra = {"resources": {"slow_node": 1}} if index < slow else {}
        cluster.add_node(wait=False, **NODE, **extra)
    cluster.wait_for_nodes(timeout=240)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    return cluster


def stop_cluster(cluster: Any) -> None:
    """Leave it and end its processes."""
    import ray

    ray.shutdown()
    with suppress(Exception):
        cluster.shutdown()


def measure(manifest: str, out: Path, nodes: int, rows: int, waits: Waits) -> Watched:
    """One run on a cluster that this process has joined."""
    watched, started, over = Watched(), time.monotonic(), threading.Event()

    def saw(progress: Progress) -> None:
        if progress.stage == "run":
            watched.done.append((time.monotonic() - started, progress.done))

    def count() -> None:
        while not over.wait(0.25):
            watched.actors.append((time.monotonic() - started, _live_actors()))

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    settings = RunSettings(
        input=manifest,
        output=str(out),
        actors=nodes,
        decoders=4 * nodes,
        batch_size=32,
        commit_rows=max(50, rows // 10),
    )
    try:
        result = run_waiting(settings, waits, saw)
    finally:
        over.set()
        counter.join()
    if result.status != "complete" or result.rows != rows:
        raise RuntimeError(f"{result.rows} rows, {result.status}")
    return watched


def _live_actors() -> int:
    """Processes of the waiting model on this machine, by the name that Ray gives them."""
    return sum(
        f"({WaitingModel.__name__})" in " ".join(each.info["cmdline"] or ()) for each in process_iter(["cmdline"])
    )


def run_benchmark(nodes: list[int], seconds: float, row_s: float, folder: str | None, as_json: bool) -> int:
    """Print rows/s by nodes, growing and shrinking, and the slow node; exit code 0."""
    place = Path(folder or tempfile.mkdtemp(prefix="mats-scale-"))
    waits = Waits(row_s=row_s, decode_s=row_s / 4)
    figures: dict[str, Any] = {"row_s": row_s, "cores": os.cpu_count(), "nodes": {}}
    try:
        for count in nodes:
            rows = round(count * seconds / row_s)
            cluster = start_cluster(count)
            try:
                watched = measure(
                    write_manifest(place / f"m{count}", rows), place / f"o{count}", count, rows, Waits(**vars(waits))
                )
            finally:
                stop_cluster(cluster)
            rate = watched.rate(rows)
            figures["nodes"][count] = {
                "rows": rows,
                "rows_per_s": round(rate, 2),
                "of_waiting": round(rate * row_s / count, 3),
                "most_actors": max((n for _, n in watched.actors), default=0),
                "actors_at_end": watched.actors[-1][1] if watched.actors else 0,
            }
            print(f"{count} nodes: {figures['nodes'][count]}", file=sys.stderr, flush=True)
        figures["slow_node"] = _slow_node(place, max(nodes), seconds, waits)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    one = figures["nodes"][nodes[0]]["rows_per_s"] / nodes[0]
    for count in nodes:
        figures["nodes"][count]["of_linear"] = round(figures["nodes"][count]["rows_per_s"] / count / one, 3)
    print(json.dumps(figures) if as_json else _table(figures))
    return 0


def _slow_node(place: Path, nodes: int, seconds: float, waits: Waits) -> dict[str, Any]:
    """One of `nodes` takes SLOW times as long: wall time beside that of an even share a node."""
    rows = round(nodes * seconds / waits.row_s)
    cluster = start_cluster(nodes, slow=1)
    try:
        given = Waits(**{**vars(waits), "slow": SLOW})
        watched = measure(write_manifest(place / "ms", rows), place / "os", nodes, rows, given)
    finally:
        stop_cluster(cluster)
    first = next(t for t, done in watched.done if done > 0)
    took = watched.done[-1][0] - first
    fair = rows * waits.row_s / (nodes - 1 + 1 / SLOW)
    return {
        "rows": rows,
        "slower": SLOW,
        "busy_s": round(took, 1),
        "ideal_s": round(fair, 1),
        "even_shares_s": round(rows / nodes * waits.row_s * SLOW, 1),
    }


def _table(figures: dict[str, Any]) -> str:
    lines = ["nodes  rows/s  of linear  of pure waiting  actors (most, last)"]
    for count, row in figures["nodes"].items():
        lines.append(
            f"{count:>5}  {row['rows_per_s']:>6}  {row['of_linear']:>9}  {row['of_waiting']:>15}  "
            f"{row['most_actors']}, {row['actors_at_end']}"
        )
    slow = figures["slow_node"]
    lines.append(
        f"one node {slow['slower']:.0f} times slower: {slow['busy_s']} s; with work handed out as it is asked for "
        f"{slow['ideal_s']} s at best, with equal shares {slow['even_shares_s']} s"
    )
    return "\n".join(lines)
