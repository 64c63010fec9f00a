"""Caption embeddings → Santa's memory, on Ray Data.

    parts ─(choose rows)─ sample ─▶ k-means ─▶ empty index ─▶ shards (tasks) ─▶ merged, cluster by cluster ─▶ OUT

Tasks hold one row group at a time and write shards of `shard_rows` vectors; merging copies one cluster at a time from
mapped shards, so neither needs the index in memory. OUT is a directory as `SantaMemory.load` takes it; an old memory
in it stays as it is until the new one lies whole beside it (`write_memory`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.encoders.facts import read_encoder_facts, refuse_other_encoder
from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from mats_core.model.directory import encoder_uri
from pipelines.cluster.progress import Progress
from pipelines.data.embeddings import EmbeddingsFacts, check_spread, part_rows, read_facts
from pipelines.output.folder import Output, open_output
from pipelines.settings.calling import by_name
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.memory_directory import check_replaceable, shards_folder, write_memory
from pipelines.text.memory_shards import ALL, Piece, Selection, count_piece, fill_shard, sample_piece, unit_rows

SHARD_BYTES = 64 << 20
TRAIN_ROWS_A_CLUSTER = 64
FEWEST_TRAIN_ROWS = 50_000


@dataclass
class BuildMemoryResult:
    """What `mats build-memory` made: what its memory.json says, and seconds in all and by step."""

    output: str
    memory: dict[str, Any] = field(repr=False)
    wall_s: float
    times: dict[str, float]


@by_name(BuildMemorySettings)
def run_build_memory(
    settings: BuildMemorySettings, progress: Callable[[Progress], None] | None = None
) -> BuildMemoryResult:
    """Build the memory of `settings.embeddings` at `settings.output`.

    Raises SettingsError before any work: embeddings that are missing, unfinished or of another encoder, sources that no
    row has, more clusters than rows, an OUTPUT with files that no build of a memory has written.
    """
    started = time.time()
    facts = _read_table(settings)
    size = settings.shard_rows or max(1024, SHARD_BYTES // (4 * facts.dim))
    parts = part_rows(settings.embeddings, facts.rows)
    pieces = [Piece(uri, at, min(at + size, rows)) for uri, rows in parts.items() for at in range(0, rows, size)]
    _check_clusters(settings, min(sum(parts.values()), settings.cap or ALL))  # what can be refused at once, is
    check_replaceable(settings.output)
    with open_output(settings.output, written=()) as out:
        try:
            build = _MemoryBuild(settings, facts, pieces, size, progress or (lambda _: None))
            memory = build.run(out)
        finally:
            storage.remove_tree(shards_folder(out))
        build.tell(Progress("done", memory["count"], memory["count"]))
        return BuildMemoryResult(settings.output, memory, round(time.time() - started, 2), build.times)


def _read_table(settings: BuildMemorySettings) -> EmbeddingsFacts:
    """Facts of the embeddings; SettingsError unless they are finished, of captions, and of the encoder asked for."""
    facts = read_facts(settings.embeddings, "text", "embeddings")
    shown = storage.public_uri(settings.embeddings)
    if not facts.encoder_fingerprint:
        problem = f"{shown} does not say which encoder made it: its _embeddings.json has no encoder_fingerprint"
        raise SettingsError("embeddings", problem, 'give the OUTPUT of "mats embed-text"')
    if settings.encoder is not None:
        asked = read_encoder_facts(encoder_uri(settings.encoder, allow_parts=settings.allow_parts)).fingerprint
        remedy = 'embed the corpora again with "mats embed-text"'
        refuse_other_encoder("embeddings", shown, facts.encoder_fingerprint, asked, remedy)
    check_spread(facts, "embeddings")
    return facts


def _check_clusters(settings: BuildMemorySettings, rows: int) -> None:
    if settings.clusters is not None and settings.clusters > rows:
        problem = f"{settings.clusters} clusters cannot be made of {rows} captions"
        raise SettingsError("clusters", problem, f"choose 1 to {rows}")


class _MemoryBuild:
    """One build's way through Ray."""

    def __init__(
        self, settings: BuildMemorySettings, facts: EmbeddingsFacts, pieces: list[Piece], shard_rows: int,
        tell: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self.settings, self.facts, self.pieces, self.shard_rows, self.tell = settings, facts, pieces, shard_rows, tell
        self.times: dict[str, float] = {}
        sources = None if settings.sources is None else tuple(settings.sources)
        self.selection = Selection(sources, settings.seed)

    def run(self, out: Output) -> dict[str, Any]:
        """Everything but the settings' checks; returns what memory.json says."""
        from pipelines.cluster.session import ray_session

        self.tell(Progress("start"))
        began = time.monotonic()
        with ray_session(self.settings.address) as there:
            self.tasks = max(1, int(there.cpus))
            counts = self._timed("count", self._count)
            total = sum(counts)
            if not total:
                problem = f"no caption is of {', '.join(self.settings.sources or ['any source'])}"
                raise SettingsError("sources", problem, "choose sources that the embeddings have")
            _check_clusters(self.settings, total)
            clusters = self.settings.clusters or faiss_index.default_clusters(total)
            sample = self._timed("sample", partial(self._sample, total, clusters))
            empty = self._timed("k-means", partial(self._train, sample, clusters))
            del sample
            shards = self._timed("fill", partial(self._fill, counts, faiss_index.to_bytes(empty), shards_folder(out)))
        self.times["start"] = round(time.monotonic() - began - sum(self.times.values()), 2)
        out.check()
        self.tell(Progress("merge", total, total))
        facts = {
            "encoder_fingerprint": self.facts.encoder_fingerprint, "dim": self.facts.dim, "count": total,
            "storage": self.settings.storage, "embeddings": storage.public_uri(self.settings.embeddings),
            "settings": self.settings.model_dump(include={"sources", "cap", "seed", "iterations"}),
        }  # fmt: skip
        return self._timed("merge", partial(write_memory, out, empty, shards, facts))

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        """What a step returns; its seconds go into `times`."""
        began = time.monotonic()
        found = step()
        self.times[name] = round(time.monotonic() - began, 2)
        return found

    def _map(self, tables: list[pa.Table], task: Callable[..., Any], *arguments: Any) -> Iterator[pa.Table]:
        """`task` on every table, as many at once as there are cores."""
        import ray

        from pipelines.cluster.session import readable_errors

        done = ray.data.from_arrow(tables).map_batches(
            task, fn_args=arguments, batch_format="pyarrow", batch_size=None, num_cpus=1,
            concurrency=min(self.tasks, len(tables)),
        )  # fmt: skip
        yield from readable_errors(done.iter_batches(batch_size=None, batch_format="pyarrow"))

    def _work(self) -> list[pa.Table]:
        """Pieces for tasks, a few for each."""
        size = -(-len(self.pieces) // (8 * self.tasks))
        rows = [{"number": number, "piece": asdict(piece)} for number, piece in enumerate(self.pieces)]
        return [pa.Table.from_pylist(rows[at : at + size]) for at in range(0, len(rows), size)]

    def _count(self) -> list[int]:
        """Rows taken of each piece; settles the threshold of a cap."""
        whole = [piece.stop - piece.start for piece in self.pieces]
        cap = self.settings.cap
        if self.selection.sources is None and (cap is None or cap >= sum(whole)):
            return whole
        found: list[tuple[int, np.ndarray]] = [(0, np.empty(0, np.uint64))] * len(whole)
        for table in self._map(self._work(), count_piece, self.selection, cap is not None):
            for row in table.to_pylist():
                found[row["number"]] = (row["rows"], np.array(row["draws"], np.uint64))
        if cap is None or cap >= sum(rows for rows, _ in found):
            return [rows for rows, _ in found]
        threshold = int(np.partition(np.concatenate([values for _, values in found]), cap - 1)[cap - 1])
        self.selection = replace(self.selection, threshold=threshold)
        return [int((values <= np.uint64(threshold)).sum()) for _, values in found]

    def _sample(self, total: int, clusters: int) -> np.ndarray:
        """Unit rows [N, D] that k-means learns from, in the order of the table."""
        wanted = self.settings.train_rows or max(TRAIN_ROWS_A_CLUSTER * clusters, FEWEST_TRAIN_ROWS)
        # note: a draw of about as many as wanted; a few more, so that there are never fewer than clusters
        share = (max(wanted, clusters) * 1.02 + 50) / total
        threshold = ALL if share >= 1 else int(share * ALL)
        found: dict[int, list[np.ndarray]] = {}
        for table in self._map(self._work(), sample_piece, self.selection, threshold):
            numbers, rows = table["number"].to_numpy(), unit_rows(table["embedding"])
            for number in np.unique(numbers):
                found.setdefault(int(number), []).append(rows[numbers == number])
        return np.concatenate([rows for number in sorted(found) for rows in found[number]])

    def _train(self, sample: np.ndarray, clusters: int) -> Any:
        self.tell(Progress("train", 0, len(sample)))
        centroids = faiss_index.train_centroids(sample, clusters, self.settings.seed, self.settings.iterations)
        return faiss_index.empty_index(centroids, self.settings.storage, sample)

    def _fill(self, counts: list[int], empty: bytes, folder: str) -> int:
        import ray

        shards: list[dict[str, Any]] = []
        first = 0
        for piece, count in zip(self.pieces, counts, strict=True):
            if not shards or first + count - shards[-1]["first"] > self.shard_rows:
                shards.append({"number": len(shards), "first": first, "pieces": []})
            shards[-1]["pieces"].append(asdict(piece))
            first += count
        tables = [pa.Table.from_pylist([shard]) for shard in shards]
        done = 0
        for table in self._map(tables, _fill_from, self.selection, ray.put(empty), folder):
            done += sum(table["rows"].to_pylist())
            self.tell(Progress("run", done, first))
        return len(shards)


def _fill_from(work: pa.Table, selection: Selection, empty: Any, folder: str) -> pa.Table:
    """`fill_shard` with the empty index taken from Ray's object store."""
    import ray

    return fill_shard(work, selection, ray.get(empty), folder)
