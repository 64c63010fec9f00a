"""The index of a run once open: nearest windows, their vectors, and the rows they belong to.

Nothing is read before it is asked for: vectors and rows stay in their files, mapped into memory.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.memory import faiss_index
from mats_core.storage.fetch import local_file
from pipelines.search.build import PLACE, Standing

SCANNED = 65_536
"""Windows that are looked at for a query: the time of one, whatever the size of the run."""
FEWEST_PROBES = 8


class Index:
    """Windows are numbered through all shards, and so are rows; row r has windows first[r] … first[r + 1] − 1."""

    def __init__(self, run: str, standing: Standing) -> None:
        self.standing = standing
        self.dim = standing.dim
        self.mean = np.array(standing.mean, np.float32)
        self._shards: list[Any] = []
        tables: list[pa.Table] = []
        firsts = [np.zeros(1, np.int64)]
        for shard in standing.shards:
            place = storage.join(run, *PLACE.split("/"), shard.name)
            try:
                index = faiss_index.open_index(local_file(f"{place}.faiss", "run"))
                table = pa.ipc.open_file(pa.memory_map(os.fspath(local_file(f"{place}.arrow", "run")))).read_all()
                table.validate()
                offsets = _offsets(table)
                if (index.d, index.ntotal, len(table), offsets[-1]) != (
                    self.dim,
                    shard.windows,
                    shard.rows,
                    index.ntotal,
                ):
                    raise ValueError("its sizes are not those that are told")
            except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
                problem = f"a shard of the index in {storage.public_uri(run)} is damaged ({first_line(error)})"
                remedy = f"remove {storage.public_uri(storage.join(run, *PLACE.split('/')))}, and it is built anew"
                raise SettingsError("run", problem, remedy) from None
            self._shards.append(index)
            firsts.append(firsts[-1][-1] + offsets[1:])
            tables.append(table)
        self.first = np.concatenate(firsts)
        self._bases = np.cumsum([0, *(shard.windows for shard in standing.shards)])
        self.rows = pa.concat_tables(tables, promote_options="default") if tables else pa.table({})
        self.windows = int(self._bases[-1])
        self._pool = ThreadPoolExecutor(min(len(self._shards) or 1, os.cpu_count() or 1), initializer=_one_thread)
        self._mapping = threading.Lock()
        self._mapped: set[int] = set()

    def probes(self, share: float = 1.0) -> int:
        """Clusters to look into, where `share` of all windows may be found."""
        clusters = self.standing.clusters
        few = FEWEST_PROBES if self.windows > SCANNED else clusters
        wanted = np.ceil(clusters * SCANNED / max(1.0, self.windows * share))
        return int(min(clusters, max(few, wanted)))

    def search(
        self, queries: np.ndarray, most: int, allowed: np.ndarray | None = None, probe: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(cosines, windows), both [B, K], the nearest first, for unit queries [B, D]; -1 where there are no more.

        allowed: bool [windows], which may be found. probe: clusters to look into.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        share = 1.0 if allowed is None else float(allowed.mean()) if len(allowed) else 0.0
        probe = probe or self.probes(share)
        numbers = range(len(self._shards))
        found = list(self._pool.map(lambda number: self._in_shard(number, queries, most, allowed, probe), numbers))
        if not found:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        distances = np.concatenate([each[0] for each in found], axis=1)
        windows = np.concatenate([each[1] for each in found], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :most]
        distances, windows = np.take_along_axis(distances, order, 1), np.take_along_axis(windows, order, 1)
        return 1.0 - distances / 2.0, windows

    def _in_shard(
        self, number: int, queries: np.ndarray, most: int, allowed: np.ndarray | None, probe: int
    ) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        index, base = self._shards[number], int(self._bases[number])
        chosen: dict[str, Any] = {"nprobe": probe}
        if allowed is not None:
            bits = np.packbits(allowed[base : base + index.ntotal], bitorder="little")
            chosen["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg]
        distances, windows = index.search(queries, min(most, index.ntotal), params=faiss.SearchParametersIVF(**chosen))
        if windows.size and windows.max() >= index.ntotal:
            raise SettingsError("run", "the index numbers its vectors wrongly", "remove _state/index: it is built anew")
        return np.where(windows < 0, np.inf, distances), np.where(windows < 0, -1, windows + base)

    def vectors(self, windows: np.ndarray) -> np.ndarray:
        """Unit vectors float32 [N, D] of windows int64 [N], as they are stored."""
        found = np.empty((len(windows), self.dim), np.float32)
        shards = np.searchsorted(self._bases, windows, side="right") - 1
        for number in np.unique(shards):
            here = np.flatnonzero(shards == number)
            with self._mapping:
                if number not in self._mapped:
                    self._shards[number].make_direct_map(True)
                    self._mapped.add(int(number))
            local = np.ascontiguousarray(windows[here] - self._bases[number], np.int64)
            found[here] = self._shards[number].reconstruct_batch(local)
        return found

    def row_of(self, windows: np.ndarray) -> np.ndarray:
        """The rows of windows, int64 [N]."""
        return np.asarray(np.searchsorted(self.first, windows, side="right") - 1)

    def windows_of(self, rows: np.ndarray) -> np.ndarray:
        """bool [rows] → bool [windows]."""
        return np.repeat(rows, np.diff(self.first))

    def times(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(start, end) of windows in their files, in seconds, each float64 [N]."""
        rows = self.row_of(windows)
        told = self.rows["windows"].take(pa.array(rows)).to_pylist()
        at = windows - self.first[rows]
        each = [times[place] for times, place in zip(told, at, strict=True)]
        return np.array([t["start_s"] for t in each]), np.array([t["end_s"] for t in each])


def _offsets(table: pa.Table) -> np.ndarray:
    """Where the windows of each row begin, and where the last end: int64 [rows + 1]."""
    counts = [np.asarray(chunk.value_lengths().fill_null(0)) for chunk in table["windows"].chunks]
    return np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]).astype(np.int64)


def _one_thread() -> None:
    """Of a thread of the pool: FAISS makes no threads in it."""
    import faiss

    faiss.omp_set_num_threads(1)
