"""The index of a run, brought up to its part files.

    what is told ─ parts that no shard holds? ─ lease ─ (k-means) ─ shards (tasks) ─ told ─ what is out of date goes

A shard holds whole parts, as many as make about SHARD_BYTES, and is never changed. A run that was continued adds
shards; parts that are gone take their shards along; when the run has grown to GROWTH times what the clusters were made
of, all is built anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from pipelines.cluster.progress import Progress
from pipelines.data import generations
from pipelines.output.folder import Output, open_output
from pipelines.search.reading import windows_in
from pipelines.search.shards import Source, centred, fill_shard, sample_part

SIDECAR = "_index.json"
PLACE = "_state/index"
FORMAT = 1
SHARD_BYTES = 256 << 20
"""Vectors of one shard, as they are stored."""
SHORT_BYTES = 2 << 30
"""Vectors up to this size are kept in 16 bits a number; more in 8."""
GROWTH = 4
TRAIN_ROWS_A_CLUSTER, FEWEST_TRAIN_ROWS = 64, 20_000
HERE_BYTES = 256 << 20
"""Vectors (float32) up to this size are indexed without a Ray, whose start takes longer."""


@dataclass(frozen=True)
class Shard:
    """A shard: its name in PLACE without ending, the part files in it, how many windows and rows."""

    name: str
    parts: tuple[str, ...]
    windows: int
    rows: int


@dataclass(frozen=True)
class Standing:
    """What `_index.json` says. trained_on: how many windows there were when the clusters were made; start: the file
    with the clusters and no vector; mean: float [dim], taken out of every vector."""

    dim: int
    storage: str
    clusters: int
    trained_on: int
    start: str
    mean: list[float] = field(repr=False)
    shards: tuple[Shard, ...] = ()
    format: int = FORMAT

    def told(self) -> dict[str, Any]:
        """As the file has it."""
        return asdict(self)

    @staticmethod
    def of(said: dict[str, Any] | None) -> Standing | None:
        """The inverse of `told`; None where there is no index, or one of another format."""
        if said is None or said.get("format") != FORMAT:
            return None
        try:
            shards = tuple(Shard(**{**each, "parts": tuple(each["parts"])}) for each in said["shards"])
            return Standing(**{**said, "shards": shards})
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Found:
    """The index as it stands, and what it lacks: part files that are in no shard, and why."""

    standing: Standing
    lacking: tuple[str, ...] = ()
    why: str = ""


def bring_up(
    run: str, source: Source, address: str | None = None, progress: Callable[[Progress], None] | None = None
) -> Found:
    """The index of `run`, with every part file in it. What is missing is built, under the run's own lease.

    Where OUTPUT cannot be written now (another run holds it, no permission), an index that is there is taken as it is,
    and `Found` says what it lacks. Raises SettingsError where there is none either.
    """
    tell = progress or (lambda _: None)
    standing, kept, lacking = _look(run, source)
    if standing is not None and not lacking and len(kept) == len(standing.shards):
        return Found(standing)
    try:
        with open_output(run, None, written=(), waiting=lambda _: tell(Progress("wait"))) as out:
            return Found(_Build(out, source, address, tell).run())
    except SettingsError as error:
        if error.setting != "output":
            raise
        if standing is None or not kept:
            problem = f"its index cannot be built now: {error.problem}"
            raise SettingsError("run", problem, "search when the other run has ended, or a copy of it") from None
        return Found(replace(standing, shards=kept), tuple(lacking), error.problem)


def _look(run: str, source: Source) -> tuple[Standing | None, tuple[Shard, ...], list[str]]:
    """(what is told, its shards of parts that are all there still, parts that are in none of these)."""
    standing = Standing.of(generations.told(run, SIDECAR))
    there = [info.path for info in generations.files(source.uri)]
    files = {info.path for info in _files(run)}
    kept = tuple(
        shard
        for shard in (standing.shards if standing else ())
        if set(shard.parts) <= set(there) and {f"{shard.name}.faiss", f"{shard.name}.arrow"} <= files
    )
    if standing is not None and standing.start not in files:
        standing, kept = None, ()
    held = {part for shard in kept for part in shard.parts}
    return standing, kept, [part for part in there if part not in held]


def _files(run: str) -> list[storage.FileInfo]:
    folder = storage.join(run, *PLACE.split("/"))
    return generations.counted(folder, list(storage.list_files(folder))) if storage.is_dir(folder) else []


class _Build:
    """One build, in an OUTPUT that is held."""

    def __init__(self, out: Output, source: Source, address: str | None, tell: Callable[[Progress], None]) -> None:
        self.out, self.source, self.address, self.tell = out, source, address, tell

    def run(self) -> Standing:
        """Build what is missing; what the index is then."""
        standing, kept, lacking = _look(self.out.uri, self.source)
        with ThreadPoolExecutor(16) as pool:
            sizes = pool.map(lambda part: windows_in(self.source.part(part), self.source.folder), lacking)
            windows = dict(zip(lacking, sizes, strict=True))
        total = sum(shard.windows for shard in kept) + sum(windows.values())
        if standing is None or total > GROWTH * standing.trained_on:
            for shard in kept:
                windows.update(self._counted(shard))
            standing, kept = None, ()
        else:  # shards that are not full are filled anew with what came
            small = [shard for shard in kept if shard.windows < _room(standing) // 2]
            for shard in small if windows else ():
                windows.update(self._counted(shard))
            kept = tuple(shard for shard in kept if shard not in small) if windows else kept
        self.total, self.done = sum(windows.values()), 0
        self.tell(Progress("run", 0, self.total))
        ray = self.address is not None or self._bytes() > HERE_BYTES
        if standing is None:
            return self._all(windows, total, ray)
        return self._settle(self._fill(replace(standing, shards=kept), windows, ray))

    def _bytes(self) -> int:
        return sum(info.size for info in generations.files(self.source.uri))

    def _counted(self, shard: Shard) -> dict[str, int]:
        """The windows of a shard's parts, about."""
        return {part: max(1, shard.windows // len(shard.parts)) for part in shard.parts}

    def _all(self, windows: dict[str, int], total: int, ray: bool) -> Standing:
        """Clusters and all shards, anew."""
        wanted = max(TRAIN_ROWS_A_CLUSTER * faiss_index.default_clusters(total), FEWEST_TRAIN_ROWS)
        share = min(1.0, 1.05 * wanted / max(1, total))
        names = sorted(windows)
        samples = list(self._each(_sample_task, [{"part": name, "share": share} for name in names], ray))
        samples.sort(key=lambda each: each["part"])  # the same in every build
        rows = [np.frombuffer(each["rows"], np.float32).reshape(-1, each["dim"]) for each in samples if each["dim"]]
        if not rows:
            shown = storage.public_uri(self.out.uri)
            raise SettingsError("run", f"{shown} holds no window of a sound", "embed an archive that has sounds")
        sample = np.concatenate(rows)
        del samples, rows  # of ten million windows nearly a gigabyte
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        sample = centred(sample, mean)
        clusters = min(faiss_index.default_clusters(total), max(1, len(sample) // faiss_index.ROWS_A_CLUSTER))
        stored = "float16" if total * sample.shape[1] * 2 <= SHORT_BYTES else "int8"
        self.tell(Progress("train", 0, len(sample)))
        empty = faiss_index.empty_index(faiss_index.train_centroids(sample, clusters), stored, sample)
        name = f"part-start-{self.out.run_id}.faiss"
        data = faiss_index.to_bytes(empty)
        self.out.put(f"{PLACE}/{name}", lambda uri: storage.write_bytes(uri, data))
        standing = Standing(int(sample.shape[1]), stored, clusters, total, name, mean.tolist())
        return self._settle(self._fill(standing, windows, ray))

    def _fill(self, standing: Standing, windows: dict[str, int], ray: bool) -> Standing:
        """`standing` with shards of these parts (name: windows) besides. Each is told of when it is there, so that a
        build that was killed goes on where it was."""
        groups: list[list[str]] = []
        held = 0
        for part in sorted(windows):
            if not groups or held + windows[part] > _room(standing):
                groups.append([])
                held = 0
            groups[-1].append(part)
            held += windows[part]
        place = self.out.join(*PLACE.split("/"))
        start = storage.read_bytes(storage.join(place, standing.start))
        tasks = [
            {"name": f"part-{uuid.uuid4().hex[:8]}-{self.out.run_id}", "parts": parts, "at": place}
            for parts in groups
        ]  # fmt: skip
        for each in self._each(_fill_task, tasks, ray, start, np.array(standing.mean, np.float32)):
            shard = Shard(each["name"], tuple(each["parts"]), each["windows"], each["rows"])
            standing = replace(standing, shards=tuple(sorted((*standing.shards, shard), key=lambda has: has.parts)))
            self.out.tell(SIDECAR, standing.told())
            self.done += shard.windows
            self.tell(Progress("run", self.done, self.total))
        return standing

    def _each(
        self, task: Callable[..., pa.Table], work: list[dict[str, Any]], ray: bool, *more: Any
    ) -> Iterator[dict[str, Any]]:
        """What `task` makes of each piece of work, here or on a Ray, as it comes."""
        for table in self._on_ray(task, work, *more) if ray and work else self._here(task, work, *more):
            self.out.check()
            yield from table.to_pylist()

    def _here(self, task: Callable[..., pa.Table], work: list[dict[str, Any]], *more: Any) -> Iterator[pa.Table]:
        for each in work:
            yield task(pa.Table.from_pylist([each]), self.source, *more)

    def _on_ray(self, task: Callable[..., pa.Table], work: list[dict[str, Any]], *more: Any) -> Iterator[pa.Table]:
        import ray

        from pipelines.cluster.session import ray_session, readable_errors

        with ray_session(self.address) as there:
            shared = [ray.put(each) for each in more]
            tables = [pa.Table.from_pylist([each]) for each in work]
            done = ray.data.from_arrow(tables).map_batches(
                _fetched, fn_args=(task, self.source, *shared), batch_format="pyarrow", batch_size=None, num_cpus=1,
                concurrency=min(max(1, int(there.cpus)), len(tables)),
            )  # fmt: skip
            yield from readable_errors(done.iter_batches(batch_size=None, batch_format="pyarrow"))

    def _settle(self, standing: Standing) -> Standing:
        """Say what the index is, and remove files that are no part of it."""
        self.out.tell(SIDECAR, standing.told())
        names = {standing.start, *(f"{shard.name}.{end}" for shard in standing.shards for end in ("faiss", "arrow"))}
        self.out.drop({f"{PLACE}/{info.path}": info.uri for info in _files(self.out.uri) if info.path not in names})
        self.tell(Progress("done", self.total, self.total))
        return standing


def _room(standing: Standing) -> int:
    """Windows of a full shard."""
    return max(1024, SHARD_BYTES // (standing.dim * (1 if standing.storage == "int8" else 2)))


def _fetched(work: pa.Table, task: Callable[..., pa.Table], source: Source, *shared: Any) -> pa.Table:
    """`task` with what it shares taken from Ray's object store."""
    import ray

    return task(work, source, *(ray.get(each) for each in shared))


def _sample_task(work: pa.Table, source: Source) -> pa.Table:
    found = []
    for row in work.to_pylist():
        taken = sample_part(source, row["part"], row["share"])
        found.append({"part": row["part"], "dim": taken.shape[1], "rows": taken.tobytes()})
    return pa.Table.from_pylist(found, pa.schema({"part": pa.string(), "dim": pa.int64(), "rows": pa.large_binary()}))


def _fill_task(work: pa.Table, source: Source, start: bytes, mean: np.ndarray) -> pa.Table:
    found = []
    for row in work.to_pylist():
        counts = fill_shard(source, row["parts"], start, mean, storage.join(row["at"], row["name"]))
        found.append({"name": row["name"], "parts": row["parts"], **counts})
    return pa.Table.from_pylist(found)
