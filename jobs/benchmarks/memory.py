"""`mats benchmark memory`: Santa's memory beside the same thing in plain PyTorch, and alone at a million captions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks import measuring
from jobs.benchmarks.inputs import lift, world_captions, write_captions
from jobs.benchmarks.measuring import median_s, print_figures, print_table, run_mats, say, timed, workplace
from mats_core.errors import SettingsError
from mats_core.storage.fingerprint import unsealed
from pipelines.cluster.plan import usable_cores

DIM, NEIGHBORS, BATCH, ITERATIONS = 1024, 32, 256, 10
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
QUERY_CLIPS = 512
GOAL_RECALL = 0.95
SCRATCH_BYTES = 64 << 20


def run_benchmark(entries: int, clusters: int, alone: bool, folder: str | None, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    if not 1 <= clusters <= entries:
        raise SettingsError("clusters", f"{entries} entries make no {clusters} clusters", f"choose 1 to {entries}")
    with workplace(folder) as place:
        figures = measure_alone(place, entries, clusters) if alone else compare(entries, clusters)
    print_figures(figures, as_json, print_alone if alone else print_comparison)
    return 0


def compare(entries: int, clusters: int) -> dict[str, Any]:
    """The same entries and queries by plain PyTorch and by SantaMemory; seconds and their ratios."""
    import torch

    from mats_core.memory.santa import SantaMemory

    torch.set_num_threads(usable_cores())
    bank, queries = embedded_captions(entries), embedded_clips(BATCH)
    rows, audio = torch.from_numpy(bank), torch.from_numpy(queries)
    say("plain PyTorch: k-means")
    (centroids, labels), plain_build = timed(lambda: plain_kmeans(rows, clusters))
    say("plain PyTorch: a query at a time")
    plain_rows, plain_s = timed(lambda: [plain_search(rows, centroids, labels, query) for query in audio[:32]])
    plain_query = plain_s / len(plain_rows)
    by_mask = median_s(lambda: [masked_search(rows, centroids, labels, query) for query in audio], 3)
    say("SantaMemory")
    build = median_s(lambda: SantaMemory.build(bank, clusters=clusters, iterations=ITERATIONS), 3)
    memory = SantaMemory.build(bank, clusters=clusters, iterations=ITERATIONS)
    found = SantaMemory.build(bank, centroids=centroids).search(queries[: len(plain_rows)], NEIGHBORS)[1]
    same = [set(a.tolist()) == set(b.tolist()) for a, b in zip(found, plain_rows, strict=True) if len(b) == NEIGHBORS]
    calls = inner_search(memory, queries)
    one, search, transfer = in_turns(
        lambda: bare_search(memory.index, queries), calls, lambda: memory.transfer(audio, neighbors=NEIGHBORS)
    )
    # note: apart, since a memory keeps its vectors ready for one kind of noise at a time
    beside, noisy = in_turns(calls, lambda: memory.transfer(audio, neighbors=NEIGHBORS, noise="keyed"))
    looked_up = median_s(lambda: memory.search(queries, NEIGHBORS), 15)
    return {
        "entries": entries,
        "clusters": clusters,
        "cores": usable_cores(),
        "plain_build_s": plain_build,
        "build_s": build,
        "build_ratio": plain_build / build,
        "plain_query_ms": 1e3 * plain_query,
        "masked_query_ms": 1e3 * by_mask / BATCH,
        "query_ms": 1e3 * looked_up / BATCH,
        "query_ratio": plain_query / (looked_up / BATCH),
        "masked_ratio": by_mask / looked_up,
        "one_cluster_ms": 1e3 * one,
        "bare_search_ms": 1e3 * search,
        "transfer_ms": 1e3 * transfer,
        "transfer_noisy_ms": 1e3 * noisy,
        "transfer_ratio": transfer / search,
        "transfer_noisy_ratio": noisy / beside,
        "transfer_one_ratio": transfer / one,
        "same_neighbours": f"{sum(same)} of {len(same)}",
    }


def in_turns(*runs: Any, rounds: int = 41) -> list[float]:
    """Median seconds of each, taken in turns, so that a busy moment of the machine meets all of them.

    Every call finds the caches as a model's work between two calls leaves them: with nothing of the memory in them.
    """
    import torch

    other = torch.zeros(SCRATCH_BYTES // 4)
    times = np.empty((rounds, len(runs)))
    for turn in range(-1, rounds):  # the first one makes ready
        for number, run in enumerate(runs):
            other.add_(1)
            times[turn, number] = timed(run)[1]
    return np.median(times, axis=0).tolist()


def bare_search(index: Any, queries: np.ndarray) -> Any:
    """FAISS alone, one cluster, as it is set up by itself."""
    index.nprobe, index.parallel_mode = 1, 0
    return index.search(queries, NEIGHBORS)


def inner_search(memory: Any, queries: np.ndarray) -> Any:
    """The FAISS calls of a `transfer` and nothing else: coarse, then the chosen clusters (two where one is small).

    The queries come as they are; `transfer` puts them in an order of its own, which is part of its time.
    """
    clusters = memory._clusters(queries, NEIGHBORS, 1)
    distances = np.zeros(clusters.shape, np.float32)

    def run() -> Any:
        memory.index.quantizer.search(queries, 2)
        memory.index.nprobe, memory.index.parallel_mode = clusters.shape[1], 3
        return memory.index.search_preassigned(queries, NEIGHBORS, clusters, distances)

    return run


def plain_kmeans(bank: Any, clusters: int) -> tuple[Any, Any]:
    """k-means as one writes it in PyTorch: every difference at once, [N, clusters, D]; centroids not normalised."""
    import torch

    centroids = bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(0))[:clusters]].clone()
    for _ in range(ITERATIONS):
        labels = ((bank[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
        for cluster in range(clusters):
            members = bank[labels == cluster]
            if len(members):
                centroids[cluster] = members.mean(0)
    return centroids, ((bank[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)


def plain_search(bank: Any, centroids: Any, labels: Any, query: Any) -> Any:
    """One query: the nearest centroid, its members by a loop over the bank, the nearest of them; numbers [≤ 32]."""
    import torch

    nearest = ((centroids - query) ** 2).sum(-1).argmin()
    return _nearest(bank, torch.tensor([row for row in range(len(bank)) if labels[row] == nearest]), query)


def masked_search(bank: Any, centroids: Any, labels: Any, query: Any) -> Any:
    """`plain_search` with the loop over the bank taken out: what a careful author would write."""
    nearest = ((centroids - query) ** 2).sum(-1).argmin()
    return _nearest(bank, (labels == nearest).nonzero()[:, 0], query)


def _nearest(bank: Any, members: Any, query: Any) -> Any:
    return members[((bank[members] - query) ** 2).sum(-1).argsort()[:NEIGHBORS]]


def embedded_captions(count: int) -> np.ndarray:
    """Unit float32 [count, DIM]: captions of the embedded world by the builtin encoder, lifted."""
    encoder = _encoder()
    return encoder.embed_text(list(world_captions(count))).numpy() @ lift(encoder.dim, DIM)


def embedded_clips(count: int) -> np.ndarray:
    """Unit float32 [count, DIM]: sounds of the embedded world, as Santa is asked with."""
    import torch

    from mats_core.soundworld.recipe import sample_recipe
    from mats_core.soundworld.synth import render

    encoder = _encoder()
    say(f"{count} clips as queries")
    found = []
    for start in range(0, count, 32):
        clips = [render(sample_recipe([77, start + at])) for at in range(min(32, count - start))]
        padded = [torch.as_tensor(encoder.pad(np.asarray(clip, np.float32))) for clip in clips]
        found.append(encoder.embed_audio(torch.stack(padded)).numpy())
    return np.ascontiguousarray(np.concatenate(found) @ lift(encoder.dim, DIM))


def _encoder() -> Any:
    from mats_core.encoders.load import load_encoder
    from mats_core.model.directory import encoder_uri

    return load_encoder(encoder_uri("builtin"), device="cpu")


def measure_alone(place: Path, entries: int, clusters: int) -> dict[str, Any]:
    """`mats build-memory` on `entries` distinct captions, then recall and time by clusters probed.

    Whatever is in the folder already (captions, embeddings) is taken as it is.
    """
    from mats_core.memory.santa import SantaMemory

    say(f"{entries} captions")
    write_captions(place / "captions.jsonl", entries)
    say("embedding them")
    run_mats("embed-text", "captions.jsonl", "embedded", cwd=place)
    say(f"lifting them to {DIM} numbers")
    lift_table(place / "embedded", place / "lifted")
    say("building the memory")
    command = ("build-memory", "lifted", "memory", "--clusters", str(clusters), "--storage", "float16")
    with measuring.watched(measuring.memory_of_tree_mb) as held:
        build_s = run_mats(*command, cwd=place, stdout=sys.stderr)
    queries = embedded_clips(QUERY_CLIPS)
    say("exact search")
    exact = exact_search(place / "lifted", queries)
    memory = SantaMemory.load(str(place / "memory"))
    rows = []
    for probe in (each for each in PROBES if each <= memory.clusters):
        found = memory.search(queries, NEIGHBORS, probe)[1]
        recall = float(np.mean([len(set(a) & set(b)) / NEIGHBORS for a, b in zip(found.tolist(), exact, strict=True)]))
        seconds = median_s(lambda probe=probe: memory.search(queries[:BATCH], NEIGHBORS, probe), 3)  # type: ignore[misc]
        rows.append({"probe": probe, "recall": recall, "query_ms": 1e3 * seconds / BATCH})
        say(f"{probe} clusters: recall {recall:.3f}, {rows[-1]['query_ms']:.2f} ms a query")
    return {
        "entries": entries,
        "clusters": memory.clusters,
        "cores": usable_cores(),
        "build_s": round(build_s, 1),
        "peak_mb": round(max(held, default=0)),
        "index_mb": round((place / "memory" / "index.faiss").stat().st_size / 1e6),
        "probes": rows,
    }


def lift_table(source: Path, target: Path) -> None:
    """An embeddings table as a table of DIM numbers, part by part."""
    import pyarrow.parquet as pq

    from pipelines.text.caption_buckets import CAPTION_SCHEMA, embedding_table

    sidecar = unsealed(json.loads((source / "_embeddings.json").read_text()))
    if (target / "_embeddings.json").exists():
        return
    up = lift(sidecar["dim"], DIM)
    (target / "embeddings").mkdir(parents=True, exist_ok=True)
    for part in sorted((source / "embeddings").glob("*.parquet")):
        table = pq.read_table(part)
        vectors = np.asarray(table["embedding"].combine_chunks().flatten(), np.float32).reshape(len(table), -1) @ up
        pq.write_table(
            embedding_table(table.select(CAPTION_SCHEMA.names), vectors.astype(np.float16)),
            target / "embeddings" / part.name,
            row_group_size=16_384,
        )
    (target / "_embeddings.json").write_text(json.dumps({**sidecar, "dim": DIM, "lifted": True}))


def exact_search(table: Path, queries: np.ndarray) -> list[list[int]]:
    """The nearest NEIGHBORS rows of each query, in float32, part by part."""
    import pyarrow.parquet as pq

    from pipelines.text.memory_shards import unit_rows

    scores, numbers = (np.full((len(queries), NEIGHBORS), fill) for fill in (-np.inf, -1.0))
    first = 0
    for part in sorted((table / "embeddings").glob("*.parquet")):
        found = queries @ unit_rows(pq.read_table(part, columns=["embedding"])["embedding"]).T
        every = np.concatenate([scores, found], axis=1)
        names = np.concatenate([numbers, np.broadcast_to(first + np.arange(found.shape[1]), found.shape)], axis=1)
        kept = np.argpartition(-every, NEIGHBORS - 1, axis=1)[:, :NEIGHBORS]
        scores, numbers = np.take_along_axis(every, kept, 1), np.take_along_axis(names, kept, 1)
        first += found.shape[1]
    return numbers.astype(int).tolist()


def print_comparison(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    f = figures
    title = (
        f"{f['entries']} entries of {DIM} numbers, {f['clusters']} clusters, {NEIGHBORS} neighbours, {f['cores']} cores"
    )
    lookup, transfer = f"lookup (ms a query, batch {BATCH})", f"transfer (ms, batch {BATCH})"
    one_cluster = "  beside FAISS with one cluster for all"
    rows = [
        ("build (s)", f"{f['plain_build_s']:.1f}", f"{f['build_s']:.2f}", f"{f['build_ratio']:.0f}"),
        (lookup, f"{f['plain_query_ms']:.2f}", f"{f['query_ms']:.3f}", f"{f['query_ratio']:.0f}"),
        ("  without the loop over the bank", f"{f['masked_query_ms']:.2f}", "", f"{f['masked_ratio']:.1f}"),
        ("same neighbours, same centroids", "", f["same_neighbours"]),
        ("", "FAISS in it"),
        (transfer, f"{f['bare_search_ms']:.1f}", f"{f['transfer_ms']:.1f}", f"{f['transfer_ratio']:.2f}"),
        ("  with noise", "", f"{f['transfer_noisy_ms']:.1f}", f"{f['transfer_noisy_ratio']:.2f}"),
        (one_cluster, f"{f['one_cluster_ms']:.1f}", f"{f['transfer_ms']:.1f}", f"{f['transfer_one_ratio']:.2f}"),
    ]
    print_table(title, ("", "plain PyTorch", "SantaMemory", "ratio"), rows)


def print_alone(figures: dict[str, Any]) -> None:
    """The figures as lines and a table."""
    print(
        f"{figures['entries']} × {DIM}, float16, {figures['clusters']} clusters, {figures['cores']} cores: built in "
        f"{figures['build_s']:.0f} s, peak memory {figures['peak_mb']} MB, index {figures['index_mb']} MB"
    )
    rows = [(str(row["probe"]), f"{row['recall']:.3f}", f"{row['query_ms']:.2f}") for row in figures["probes"]]
    columns = ("clusters probed", "recall", f"ms a query, batch {BATCH}")
    print_table(f"{QUERY_CLIPS} sounds, recall@{NEIGHBORS} against exact search", columns, rows)
    enough = [row for row in figures["probes"] if row["recall"] >= GOAL_RECALL]
    if enough:
        print(f"recall {GOAL_RECALL}: {enough[0]['probe']} clusters, {enough[0]['query_ms']:.2f} ms a query")
