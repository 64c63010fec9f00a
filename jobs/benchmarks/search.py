"""`mats benchmark search`: the index of a run of many windows, beside exact search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks.inputs import lift
from jobs.benchmarks.measuring import memory_of_tree_mb, print_figures, print_table, say, timed, watched, workplace
from jobs.benchmarks.memory import embedded_clips
from pipelines.cluster.plan import usable_cores

DIM, PART_WINDOWS, CHUNK_WINDOWS, WINDOW_S = 1024, 20_000, 10, 7.0
SOUNDS, QUERIES, NEAREST = 2048, 200, 10
NOISE = 0.35
"""Length of what is drawn at random in each window, beside 1 of sounds of the embedded world."""


def run_benchmark(windows: int, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    with workplace(folder) as place:
        figures = measure(place, windows)
    print_figures(figures, as_json, print_search)
    return 0


def measure(place: Path, windows: int) -> dict[str, Any]:
    """Write a run of `windows`, let `mats search` build its index, and search it. A run that is there is taken."""
    from pipelines.data import generations
    from pipelines.search.run import open_run

    sounds = embedded_clips(SOUNDS)
    run = str(place / "run")
    if generations.told(run, "_embeddings.json") is None:
        say(f"writing {windows} windows")
        write_run(run, sounds, windows)
    say("building the index")
    with watched(memory_of_tree_mb) as held:
        opened, build_s = timed(lambda: open_run(run))
    index = opened.index
    queries = {"sounds": next(made_windows(sounds, QUERIES, seed=10_000_000)), "words": embedded_words(QUERIES)}
    found: dict[str, Any] = {}
    for name, vectors in queries.items():
        moved = vectors - (index.mean if name == "sounds" else vectors.mean(axis=0))
        moved = np.ascontiguousarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)
        say(f"exact search for {name}")
        exact = exact_search(run, moved, index.mean)
        times, rows = [], []
        for query in moved:
            answer, seconds = timed(lambda query=query: index.search(query[None], NEAREST))  # type: ignore[misc]
            rows.append(answer[1][0])
            times.append(1e3 * seconds)
        same = [len(set(index_rows(index, a)) & set(b)) / NEAREST for a, b in zip(rows, exact, strict=True)]
        found[name] = {
            "recall": float(np.mean(same)),
            "first_ms": times[0],
            "median_ms": float(np.median(times)),
            "p95_ms": float(np.percentile(times, 95)),
        }
    again = timed(lambda: open_run(run))[1]
    size = sum(path.stat().st_size for path in (place / "run" / "_state" / "index").iterdir())
    return {
        "windows": index.windows, "dim": DIM, "storage": index.standing.storage, "clusters": index.standing.clusters,
        "probes": index.probes(), "shards": len(index.standing.shards), "cores": usable_cores(),
        "build_s": round(build_s, 1), "open_s": round(again, 2), "peak_mb": round(max(held, default=0)),
        "index_gb": round(size / 1e9, 2), "queries": found,
    }  # fmt: skip


def made_windows(sounds: np.ndarray, count: int, seed: int) -> Any:
    """Unit float32 [PART_WINDOWS, DIM] at a time: mixtures of up to three sounds [N, DIM], and noise."""
    for start in range(0, count, PART_WINDOWS):
        draw = np.random.default_rng([seed, start])
        size = min(PART_WINDOWS, count - start)
        weights = draw.dirichlet([0.5] * 3, size).astype(np.float32)  # most are near to one sound
        chosen = draw.integers(0, len(sounds), (size, 3))
        made = sum(weights[:, at, None] * sounds[chosen[:, at]] for at in range(3))
        noise = draw.standard_normal((size, DIM), dtype=np.float32)
        made += noise * np.float32(NOISE / np.sqrt(DIM))
        yield np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def embedded_words(count: int) -> np.ndarray:
    """Unit float32 [N, DIM]: captions of the embedded world, lifted as its sounds are."""
    from jobs.benchmarks.inputs import world_captions
    from mats_core.encoders.load import load_encoder
    from mats_core.model.directory import encoder_uri

    encoder = load_encoder(encoder_uri("builtin"), device="cpu")
    vectors = encoder.embed_text([f"the sound of {text}" for text in world_captions(count)]).numpy()
    return np.asarray(vectors @ lift(encoder.dim, DIM), np.float32)


def write_run(run: str, sounds: np.ndarray, windows: int) -> None:
    """An OUTPUT as `mats embed-audio` writes it, with made-up windows."""
    from pipelines.data.embeddings import EmbeddingsFacts, told_of
    from pipelines.output.folder import open_output
    from pipelines.output.parts import part_name

    with open_output(run, {"job": "embed-audio"}, results="embeddings") as out:
        first = 0
        for number, vectors in enumerate(made_windows(sounds, windows, seed=0)):
            table = window_rows(vectors, first)
            out.put_table(f"embeddings/{part_name(first, out.run_id, number)}", table)
            first += len(table)
        out.write_run({"job": "embed-audio", "status": "complete", "settings": {"model": "builtin"}})
        out.tell("_embeddings.json", told_of(EmbeddingsFacts(run, dim=DIM, window_seconds=WINDOW_S)))


def window_rows(vectors: np.ndarray, first: int) -> pa.Table:
    """Rows of chunks of CHUNK_WINDOWS windows each, from row_id `first` on."""
    from pipelines.data.schemas import WINDOWS_TYPE

    count = -(-len(vectors) // CHUNK_WINDOWS)
    within = np.arange(len(vectors)) % CHUNK_WINDOWS * WINDOW_S
    offsets = np.minimum(np.arange(count + 1) * CHUNK_WINDOWS, len(vectors)).astype(np.int32)
    every = pa.array(np.arange(0, vectors.size + 1, DIM, np.int32))
    embeddings = pa.ListArray.from_arrays(every, pa.array(vectors.reshape(-1)))
    weights = pa.array(np.full(len(vectors), WINDOW_S, np.float32))
    inside = pa.StructArray.from_arrays([pa.array(within), weights, embeddings], ["start_s", "weight", "embedding"])
    rows = np.arange(first, first + count)
    return pa.table(
        {
            "row_id": rows,
            "chunk_id": [f"{row:016x}" for row in rows],
            "uri": [f"s3://archive/recordings/{row // 60:06d}.wav" for row in rows],
            "start_s": (rows % 60) * CHUNK_WINDOWS * WINDOW_S,
            "duration_s": np.full(count, CHUNK_WINDOWS * WINDOW_S),
            "decoded_s": np.full(count, CHUNK_WINDOWS * WINDOW_S),
            "error_code": pa.nulls(count, pa.string()),
            "windows": pa.ListArray.from_arrays(pa.array(offsets), inside).cast(WINDOWS_TYPE),
        }
    )


def index_rows(index: Any, windows: np.ndarray) -> list[int]:
    """Windows of the index as numbers of windows of the run, which `window_rows` counted."""
    rows = index.row_of(windows)
    ids = np.asarray(index.rows["row_id"].take(pa.array(rows)))
    found: list[int] = (ids * CHUNK_WINDOWS + windows - index.first[rows]).tolist()
    return found


def exact_search(run: str, queries: np.ndarray, mean: np.ndarray) -> list[list[int]]:
    """The nearest NEAREST windows of each unit query [B, D], in float32, of vectors with their mean taken out."""
    from pipelines.data import generations
    from pipelines.search.reading import read_windows
    from pipelines.search.shards import centred

    scores, numbers = np.full((len(queries), NEAREST), -np.inf), np.full((len(queries), NEAREST), -1)
    for info in generations.files(f"{run}/embeddings"):
        for rows, vectors in read_windows(info.uri, "embeddings", WINDOW_S):
            first = rows["row_id"][0].as_py() * CHUNK_WINDOWS
            every = np.concatenate([scores, queries @ centred(vectors, mean).T], axis=1)
            own = np.broadcast_to(first + np.arange(len(vectors)), (len(queries), len(vectors)))
            names = np.concatenate([numbers, own], axis=1)
            kept = np.argpartition(-every, NEAREST - 1, axis=1)[:, :NEAREST]
            scores, numbers = np.take_along_axis(every, kept, 1), np.take_along_axis(names, kept, 1)
    return [row.tolist() for row in numbers]


def print_search(figures: dict[str, Any]) -> None:
    """The figures as lines and a table."""
    f = figures
    print(
        f"{f['windows']} × {f['dim']}, {f['storage']}, {f['clusters']} clusters in {f['shards']} shards, "
        f"{f['cores']} cores: built in {f['build_s']:.0f} s, peak memory {f['peak_mb']} MB, index {f['index_gb']} GB, "
        f"opened in {f['open_s']} s; {f['probes']} clusters probed"
    )
    rows = [
        (name, f"{each['recall']:.3f}", *(f"{each[column]:.1f}" for column in ("first_ms", "median_ms", "p95_ms")))
        for name, each in f["queries"].items()
    ]
    columns = (f"{QUERIES} queries", f"recall@{NEAREST}", "first (ms)", "median (ms)", "95 % (ms)")
    print_table("one query at a time, against exact search in float32", columns, rows)
