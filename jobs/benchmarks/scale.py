"""`mats benchmark scale`: throughput on 1, 2, 4 and 8 nodes, with a model and decoding that only wait.

The nodes are raylets on this machine with virtual CPUs and GPUs (ray.cluster_utils.Cluster). Work list, lease,
Ray graph and part files are the real ones. What is measured is the design and this machine's overhead, no model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psutil import process_iter

from jobs.benchmarks.measuring import print_figures, say, watched, workplace
from pipelines.archive.decode_stage import SOUND, ShardStage, decode_stage
from pipelines.archive.run import Job, RunResult, run_rows
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
        count = len(rows)
        same = {"segments": None, "model_fingerprint": "stand-in", "run_id": self.run_id, "silent": False}
        same |= dict.fromkeys(("logprob", "clap_score", "confidence", "text_unsure"))
        values = {"text": texts} | {name: [value] * count for name, value in same.items()}
        rows = with_output(rows, "caption", None, values)
        figures = {"tokens": 10.0 * count, "asked": float(count), "places": 32.0}
        figures |= {"began_at": began, "ready_at": self.ready_at}
        return timed(rows, answer_s=time.monotonic() - started, **figures)

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
        told = dict.fromkeys(SOUND) | {"decoded_s": CHUNK_S, "complete": True, "lost_s": 0.0}
        for name, value in told.items():
            rows = with_column(rows, name, [value] * len(rows), SOUND[name])
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
    if decodes:
        first = decode_stage(settings, RATE)
    else:
        first = Stage("wait", WaitingDecode, (waits.decode_s,), writes=tuple(SOUND), cpus=DECODER_CPUS)
    columns: dict[str, Any] = {"reads": ("pcm",) if decodes else (), "drops": dropped_columns("caption", None)}
    columns["writes"] = ("text", "segments", "model_fingerprint", "run_id")
    job = Job(
        name=name,
        folder="answers",
        identity={"job": name},
        chunk_s=CHUNK_S,
        model_bytes=0,
        defaults={"task": "caption", "question": None, "tag": None},
        stages=[first, Stage("stand-in", model, (waits,), **columns, cpus=MODEL_CPUS, gpus=1.0)],
    )
    return run_rows(settings, job, open_input(settings.input, settings.schemes, settings.columns), progress)


@dataclass
class Watched:
    """What was seen of a run: (moment in seconds, rows done), and live model actors, one number after the other."""

    done: list[tuple[float, int]]
    actors: list[int] = field(default_factory=list)

    def rate(self, total: int) -> float:
        """Rows a second in the busy window."""
        first = next(each for each in self.done if each[1] >= WINDOW[0] * total)
        last = next(each for each in self.done if each[1] >= WINDOW[1] * total)
        return (last[1] - first[1]) / max(1e-9, last[0] - first[0])


def write_manifest(folder: Path, rows: int) -> str:
    """A manifest of `rows` minutes that are nowhere; nothing reads them."""
    columns: dict[str, Any] = {name: pa.nulls(rows, MANIFEST_SCHEMA.field(name).type) for name in MANIFEST_SCHEMA.names}
    columns["chunk_id"] = [f"{i:08d}" for i in range(rows)]
    columns["uri"] = [f"{folder}/sounds/{number}.flac" for number in columns["chunk_id"]]
    columns |= {"start_s": [0.0] * rows, "duration_s": [CHUNK_S] * rows}
    (folder / "manifest").mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=MANIFEST_SCHEMA), folder / "manifest" / "part-0.parquet")
    (folder / "_manifest.json").write_text("{}")
    return str(folder)


@contextmanager
def joined_cluster(nodes: int, slow: int = 0) -> Iterator[None]:
    """A head without CPUs and `nodes` workers, `slow` of them with the resource slow_node; this process joins it."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 0, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for index in range(nodes):
            extra = {"resources": {"slow_node": 1}} if index < slow else {}
            cluster.add_node(wait=False, **NODE, **extra)
        cluster.wait_for_nodes(timeout=240)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield
    finally:
        ray.shutdown()
        with suppress(Exception):
            cluster.shutdown()


def measure(place: Path, nodes: int, rows: int, waits: Waits) -> Watched:
    """One run of `rows` rows on a cluster of its own; where `waits` are slow, one node is."""
    done: list[tuple[float, int]] = []

    def saw(progress: Progress) -> None:
        if progress.stage == "run":
            done.append((time.monotonic(), progress.done))

    shape = {"actors": nodes, "decoders": 4 * nodes, "batch_size": 32, "commit_rows": max(50, rows // 10)}
    settings = RunSettings(input=write_manifest(place / "manifest", rows), output=str(place / "out"), **shape)
    with joined_cluster(nodes, slow=int(waits.slow != 1.0)), watched(_live_actors, 0.25) as actors:
        result = run_waiting(settings, waits, saw)
    if result.status != "complete" or result.rows != rows:
        raise RuntimeError(f"{result.rows} rows, {result.status}")
    return Watched(done, actors)


def _live_actors() -> int:
    """Processes of the waiting model on this machine, by the name that Ray gives them."""
    return sum(
        f"({WaitingModel.__name__})" in " ".join(each.info["cmdline"] or ()) for each in process_iter(["cmdline"])
    )


def run_benchmark(nodes: list[int], seconds: float, row_s: float, folder: str | None, as_json: bool) -> int:
    """Print rows/s by nodes, growing and shrinking, and the slow node; exit code 0."""
    waits = Waits(row_s=row_s, decode_s=row_s / 4)
    figures: dict[str, Any] = {"row_s": row_s, "cores": os.cpu_count(), "nodes": {}}
    with workplace(folder) as place:
        for count in nodes:
            rows = round(count * seconds / row_s)
            seen = measure(place / str(count), count, rows, waits)
            rate = seen.rate(rows)
            figures["nodes"][count] = {
                "rows": rows,
                "rows_per_s": round(rate, 2),
                "of_waiting": round(rate * row_s / count, 3),
                "most_actors": max(seen.actors, default=0),
                "actors_at_end": seen.actors[-1] if seen.actors else 0,
            }
            say(f"{count} nodes: {figures['nodes'][count]}")
        figures["slow_node"] = _slow_node(place / "slow", max(nodes), seconds, waits)
    one = figures["nodes"][nodes[0]]["rows_per_s"] / nodes[0]
    for count, row in figures["nodes"].items():
        row["of_linear"] = round(row["rows_per_s"] / count / one, 3)
    print_figures(figures, as_json, print_rates)
    return 0


def _slow_node(place: Path, nodes: int, seconds: float, waits: Waits) -> dict[str, Any]:
    """One of `nodes` takes SLOW times as long: wall time beside that of an even share a node."""
    rows = round(nodes * seconds / waits.row_s)
    done = measure(place, nodes, rows, replace(waits, slow=SLOW)).done
    first = next(t for t, count in done if count > 0)
    return {
        "rows": rows,
        "slower": SLOW,
        "busy_s": round(done[-1][0] - first, 1),
        "ideal_s": round(rows * waits.row_s / (nodes - 1 + 1 / SLOW), 1),
        "even_shares_s": round(rows / nodes * waits.row_s * SLOW, 1),
    }


def print_rates(figures: dict[str, Any]) -> None:
    """A line a number of nodes, and one for the slow node."""
    print("nodes  rows/s  of linear  of pure waiting  actors (most, last)")
    for count, row in figures["nodes"].items():
        print(
            f"{count:>5}  {row['rows_per_s']:>6}  {row['of_linear']:>9}  {row['of_waiting']:>15}  "
            f"{row['most_actors']}, {row['actors_at_end']}"
        )
    slow = figures["slow_node"]
    print(
        f"one node {slow['slower']:.0f} times slower: {slow['busy_s']} s; with work handed out as it is asked for "
        f"{slow['ideal_s']} s at best, with equal shares {slow['even_shares_s']} s"
    )
