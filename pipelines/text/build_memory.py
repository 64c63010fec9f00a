"""Caption embeddings → Santa's memory, on Ray Data.

    parts ─(choose rows)─ sample ─▶ k-means ─▶ empty index ─▶ shards (tasks) ─▶ merged, cluster by cluster ─▶ OUT

Tasks hold one row group at a time and write shards of `shard_rows` vectors; merging copies one cluster at a time from
mapped shards, so neither needs the index in memory. OUT is a directory as `SantaMemory.load` takes it; an old memory
in it stays as it is until the new one lies whole beside it (`put_memory`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.encoders.facts import read_encoder_facts, refuse_other_encoder
from mats_core.errors import SettingsError, got_allowed
from mats_core.memory import faiss_index as ivf
from mats_core.model.directory import encoder_uri
from pipelines.cluster.meter import peak_mb
from pipelines.cluster.progress import Progress
from pipelines.data import parquet
from pipelines.data.embeddings import EmbeddingsFacts, part_rows, read_facts
from pipelines.output.folder import Output, open_output
from pipelines.settings.text import BuildMemorySettings
from pipelines.text.memory_shards import (
    ALL,
    Choice,
    Piece,
    count_piece,
    fill_shard,
    piece_table,
    sample_piece,
    shard_uri,
    unit_rows,
)

SHARD_BYTES = 64 << 20
TRAIN_ROWS_A_CLUSTER = 64
FEWEST_TRAIN_ROWS = 50_000
FILES = ("index.faiss", "captions.parquet", "memory.json")


@dataclass
class BuildMemoryResult:
    """What `mats build-memory` made; seconds by step in `times`."""

    output: str
    count: int
    clusters: int
    dim: int
    storage: str
    size_bytes: int
    wall_s: float
    times: dict[str, float] = field(default_factory=dict)


def run_build_memory(
    settings: BuildMemorySettings, progress: Callable[[Progress], None] | None = None
) -> BuildMemoryResult:
    """Build the memory of `settings.embeddings` at `settings.output`.

    Raises SettingsError before any work: embeddings that are missing, unfinished or of another encoder, sources that no
    row has, more clusters than rows, an OUTPUT with files that no build of a memory has written.
    """
    started = time.time()
    facts = _read_table(settings)
    pieces = _find_pieces(settings, facts)
    if settings.clusters is not None:  # what can be refused at once, is
        _check_clusters(settings, min(sum(p.stop - p.start for p in pieces), settings.cap or ALL))
    _check_replaceable(settings.output)
    with open_output(settings.output, written=()) as out:
        try:
            _remove_unfinished(settings.output)
            builder = _Builder(settings, facts, pieces, progress or (lambda _: None))
            note = builder.run(out)
        finally:
            storage.remove_tree(out.join("_state", "shards"))
        result = BuildMemoryResult(
            settings.output,
            note["count"],
            note["clusters"],
            note["dim"],
            note["storage"],
            note["index_bytes"],
            round(time.time() - started, 2),
            builder.times,
        )
        builder.tell(Progress("done", result.count, result.count))
        return result


def _read_table(settings: BuildMemorySettings) -> EmbeddingsFacts:
    """Facts of the embeddings; SettingsError unless they are finished, of captions, and of the encoder asked for."""
    facts = read_facts(settings.embeddings, "text", "embeddings")
    shown = storage.public_uri(settings.embeddings)
    if not facts.encoder_fingerprint:
        problem = f"{shown} does not say which encoder made it: its _embeddings.json has no encoder_fingerprint"
        raise SettingsError("embeddings", problem, 'give the OUTPUT of "mats embed-text"')
    if settings.encoder is not None:
        asked = read_encoder_facts(encoder_uri(settings.encoder)).fingerprint
        remedy = 'embed the corpora again with "mats embed-text"'
        refuse_other_encoder("embeddings", shown, facts.encoder_fingerprint, asked, remedy)
    return facts


def _check_replaceable(output: str) -> None:
    """SettingsError where OUTPUT holds a file of a memory's names that no build of a memory has written."""
    try:
        there = [name for name in FILES if storage.exists(storage.join(output, name))]
    except storage.StorageError:
        return  # an OUTPUT that cannot be written is told of later
    if not there:
        return
    try:
        note = json.loads(storage.read_bytes(storage.join(output, "memory.json")))
    except (storage.StorageError, ValueError):
        note = None
    if not isinstance(note, dict) or not {"fingerprint", "encoder_fingerprint"} <= set(note):
        allowed = f"an empty folder, or one with a memory to replace; {there[0]} in it is of no memory: move it away"
        raise got_allowed("output", storage.public_uri(output), allowed)


def _find_pieces(settings: BuildMemorySettings, facts: EmbeddingsFacts) -> list[Piece]:
    """The parts, cut where one is longer than a shard."""
    size = _shard_rows(settings, facts.dim)
    parts = part_rows(settings.embeddings, facts.rows)
    return [Piece(uri, at, min(at + size, rows)) for uri, rows in parts.items() for at in range(0, rows, size)]


def _shard_rows(settings: BuildMemorySettings, dim: int) -> int:
    return settings.shard_rows or max(1024, SHARD_BYTES // (4 * dim))


def _check_clusters(settings: BuildMemorySettings, rows: int) -> None:
    if settings.clusters is not None and settings.clusters > rows:
        raise got_allowed("clusters", settings.clusters, f"1 to {rows}, the number of captions")


class _Builder:
    """One build's way through Ray."""

    def __init__(
        self,
        settings: BuildMemorySettings,
        facts: EmbeddingsFacts,
        pieces: list[Piece],
        tell: Callable[[Progress], None],
    ) -> None:
        self.settings, self.facts, self.pieces, self.tell = settings, facts, pieces, tell
        self.choice = Choice(tuple(settings.sources) if settings.sources is not None else None, settings.seed)
        self.times: dict[str, float] = {}
        self.tasks = 1

    def run(self, out: Output) -> dict[str, Any]:
        """Everything but the settings' checks; returns what memory.json says."""
        from pipelines.cluster.session import ray_session

        self.tell(Progress("start"))
        with self._timed("start"), ray_session(self.settings.address) as there:
            self.tasks = max(1, int(there.cpus))
            counts = self._timed_call("count", self._count)
            total = sum(counts)
            if not total:
                raise got_allowed("sources", self.settings.sources, "sources that some caption has")
            _check_clusters(self.settings, total)
            sample = self._timed_call("sample", partial(self._sample, total))
            clusters = self.settings.clusters or ivf.default_clusters(total)
            empty = self._timed_call("k-means", partial(self._train, sample, clusters))
            del sample
            shards = self._timed_call("fill", partial(self._fill, counts, ivf.to_bytes(empty)))
        out.check()
        return self._timed_call("merge", partial(self._merge, empty, shards, total))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.times[name] = round(time.monotonic() - began - sum(self.times.values()), 2)

    def _timed_call(self, name: str, step: Callable[[], Any]) -> Any:
        began = time.monotonic()
        found = step()
        self.times[name] = round(time.monotonic() - began, 2)
        return found

    def _map(self, tables: list[pa.Table], task: Callable[..., Any], *arguments: Any) -> Iterator[pa.Table]:
        """`task` on every table, as many at once as there are cores."""
        import ray

        from pipelines.cluster.session import readable_errors

        done = ray.data.from_arrow(tables).map_batches(
            task,
            fn_args=arguments,
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1,
            concurrency=min(self.tasks, len(tables)),
        )
        yield from readable_errors(done.iter_batches(batch_size=None, batch_format="pyarrow"))

    def _work(self) -> list[pa.Table]:
        """Pieces for tasks, a few for each."""
        size = -(-len(self.pieces) // (8 * self.tasks))
        return [
            piece_table(list(range(at, min(at + size, len(self.pieces)))), self.pieces[at : at + size])
            for at in range(0, len(self.pieces), size)
        ]

    def _count(self) -> list[int]:
        """Rows taken of each piece; settles the threshold of a cap."""
        whole = [piece.stop - piece.start for piece in self.pieces]
        cap = self.settings.cap
        if self.choice.sources is None and (cap is None or cap >= sum(whole)):
            return whole
        found: list[tuple[int, np.ndarray]] = [(0, np.empty(0, np.uint64))] * len(whole)
        for table in self._map(self._work(), count_piece, self.choice, cap is not None):
            for number, rows, values in zip(*(table[name].to_pylist() for name in table.schema.names), strict=True):
                found[number] = (rows, np.array(values, np.uint64))
        total = sum(rows for rows, _ in found)
        if cap is None or cap >= total:
            return [rows for rows, _ in found]
        every = np.concatenate([values for _, values in found])
        threshold = int(np.partition(every, cap - 1)[cap - 1])
        self.choice = Choice(self.choice.sources, self.choice.seed, threshold)
        return [int((values <= np.uint64(threshold)).sum()) for _, values in found]

    def _sample(self, total: int) -> np.ndarray:
        """Unit rows [N, D] that k-means learns from, in the order of the table."""
        clusters = self.settings.clusters or ivf.default_clusters(total)
        wanted = self.settings.train_rows or max(TRAIN_ROWS_A_CLUSTER * clusters, FEWEST_TRAIN_ROWS)
        # note: a draw of about as many as wanted; a few more, so that there are never fewer than clusters
        share = (max(wanted, clusters) * 1.02 + 50) / total
        threshold = ALL if share >= 1 else int(share * ALL)
        found: dict[int, list[np.ndarray]] = {}
        for table in self._map(self._work(), sample_piece, self.choice, threshold):
            numbers, rows = table["number"].to_numpy(), unit_rows(table["embedding"])
            for number in np.unique(numbers):
                found.setdefault(int(number), []).append(rows[numbers == number])
        return np.concatenate([rows for number in sorted(found) for rows in found[number]])

    def _train(self, sample: np.ndarray, clusters: int) -> Any:
        self.tell(Progress("train", 0, len(sample)))
        centroids = ivf.train_centroids(sample, clusters, self.settings.seed, self.settings.iterations)
        return ivf.empty_index(centroids, self.settings.storage, sample)

    def _fill(self, counts: list[int], empty: bytes) -> list[int]:
        """Fill the shards; returns their numbers."""
        import ray

        size = _shard_rows(self.settings, self.facts.dim)
        groups: list[tuple[int, list[Piece]]] = []
        first = rows = 0
        for piece, count in zip(self.pieces, counts, strict=True):
            if not groups or rows + count > size:
                groups.append((first, []))
                rows = 0
            groups[-1][1].append(piece)
            rows += count
            first += count
        tables = [
            pa.table({"number": [n], "first": [at], "pieces": [json.dumps([asdict(p) for p in pieces])]})
            for n, (at, pieces) in enumerate(groups)
        ]
        folder = storage.join(self.settings.output, "_state", "shards")
        storage.remove_tree(folder)
        done = 0
        for table in self._map(tables, _fill_from, self.choice, ray.put(empty), folder):
            done += sum(table["rows"].to_pylist())
            self.tell(Progress("run", done, first))
        return list(range(len(groups)))

    def _merge(self, empty: Any, shards: list[int], total: int) -> dict[str, Any]:
        """Make the memory of the shards and put it in place; returns what its memory.json says."""
        self.tell(Progress("merge", total, total))
        folder = storage.join(self.settings.output, "_state", "shards")
        try:
            with _workplace(self.settings.output) as place:
                return self._make(empty, folder, shards, total, place)
        except (OSError, pa.ArrowException) as error:  # a full disk, say
            raise storage.error_from(error, self.settings.output) from None

    def _make(self, empty: Any, folder: str, shards: list[int], total: int, place: Path) -> dict[str, Any]:
        local = [_local(shard_uri(folder, n, "faiss"), place) for n in shards]
        fingerprint = ivf.merge_shards(empty, local, place / "index.faiss")
        _write_captions([shard_uri(folder, n, "captions.parquet") for n in shards], place / "captions.parquet")
        note = {
            "fingerprint": fingerprint,
            "encoder_fingerprint": self.facts.encoder_fingerprint,
            "dim": self.facts.dim,
            "count": total,
            "clusters": int(empty.nlist),
            "storage": self.settings.storage,
            "index_bytes": (place / "index.faiss").stat().st_size,
            "embeddings": storage.public_uri(self.settings.embeddings),
            "settings": self.settings.model_dump(include={"sources", "cap", "seed", "iterations"}),
            "driver_peak_mb": peak_mb(),
        }
        (place / "memory.json").write_text(json.dumps(note, indent=1, ensure_ascii=False) + "\n")
        put_memory(place, self.settings.output)
        return note


def _fill_from(work: pa.Table, choice: Choice, empty: Any, folder: str) -> pa.Table:
    """`fill_shard` with the empty index taken from Ray's object store."""
    import ray

    return fill_shard(work, choice, ray.get(empty), folder)


def _local_state(output: str) -> Path | None:
    """OUTPUT/_state where that is a local folder."""
    path = storage.local_path(output)
    return Path(path.decode(errors="surrogateescape")) / "_state" if path is not None else None


@contextmanager
def _workplace(output: str) -> Iterator[Path]:
    """A local folder for the memory in the making: inside OUTPUT where that is local, so that moving is renaming."""
    with tempfile.TemporaryDirectory(prefix="memory-", dir=_local_state(output)) as place:
        yield Path(place)


def _remove_unfinished(output: str) -> None:
    """Remove the workplace of a build that was killed. Only for the holder of the lease."""
    state = _local_state(output)
    for left in state.glob("memory-*") if state is not None else ():
        shutil.rmtree(left, ignore_errors=True)


def _local(uri: str, place: Path) -> Path:
    """A file to map into memory: itself, or a copy of a remote one."""
    path = storage.local_path(uri)
    if path is not None:
        return Path(path.decode(errors="surrogateescape"))
    copy = place / uri.rsplit("/", 1)[-1]
    copy.write_bytes(storage.read_bytes(uri))
    return copy


def put_memory(made: Path, output: str) -> None:
    """Switch OUTPUT to the memory in `made`, a folder on its disk: index, captions, and last memory.json.

    Locally that is three renames, which need no room. To a store the files are uploaded beside the old ones first, and
    the store copies them into place. What fails until then leaves the old memory as it was; a kill between two of the
    three leaves a memory.json that names another index, which `SantaMemory.load` refuses.
    """
    place = storage.local_path(output)
    if place is not None:
        for name in FILES:
            with (made / name).open("rb+") as file:
                os.fsync(file.fileno())  # a disk that is full may say so only here
        for name in FILES:
            os.replace(made / name, os.path.join(place, name.encode()))
        return
    beside = storage.join(output, "_state", "next")
    try:
        for name in FILES:
            _upload(made / name, storage.join(beside, name))
        for name in FILES:
            _copy(storage.join(beside, name), storage.join(output, name))
    finally:
        storage.remove_tree(beside)


def _upload(file: Path, uri: str) -> None:
    fs, name = storage.filesystem(uri)
    storage.make_dirs(uri.rpartition("/")[0])
    try:
        fs.put_file(str(file), name)
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise storage.error_from(error, uri) from None


def _copy(source: str, target: str) -> None:
    fs, name = storage.filesystem(target)
    try:
        fs.cp_file(storage.filesystem(source)[1], name)
    except Exception as error:
        raise storage.error_from(error, target) from None


def _write_captions(parts: list[str], target: Path) -> None:
    """captions.parquet: row i is the text of row i of the index."""
    schema = pa.schema([("caption", pa.string()), ("source", pa.string())])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for uri in parts:
            writer.write_table(parquet.read(uri).cast(schema))
