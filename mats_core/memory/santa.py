"""Santa: move an audio embedding towards real text embeddings held in a memory (MATS paper, section 3.3).

A memory is a directory: `index.faiss` (IVF; its k-means centroids are Santa's clusters), `captions.parquet`
(row i of the index ↔ caption, source) and `memory.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.errors import SettingsError, first_line
from mats_core.memory import faiss_index
from mats_core.memory.captions import check_captions, read_captions
from mats_core.memory.noise import inject_noise, keyed_normal
from mats_core.spread import refuse_alike, some_rows
from mats_core.storage.descriptions import read_object
from mats_core.storage.fetch import local_directory
from mats_core.storage.fingerprint import combine, fingerprint_file, sealed, unsealed
from mats_core.storage.uris import Uri, path_of, public_uri, uri_text

READY_BYTES = 128 << 20
"""Vectors of a memory up to this size stay ready to be mixed, noise and all, once they have been asked for.

They are the process's own, unlike the mapped file: reading them there and drawing their noise again made a lookup of
256 queries 24 times slower (5172 × 1024, float16). Larger memories do that, and share every byte.
"""

_EACH_QUERY = 3  # FAISS's parallel_mode: threads share the queries of a batch
_ROUGH = 1e-4  # squared distances nearer to one another than this are computed pair by pair

_GATHERED = 256  # rows of the memory that are mixed at once: what fits a core's cache


class SantaMemory:
    """Text embeddings searched by cluster. Make one with `build` or `load`.

    Attributes: count, dim, clusters; encoder_fingerprint ("" when not known); fingerprint.
    """

    def __init__(self, index: Any, captions: Any, encoder_fingerprint: str, fingerprint: str, storage: str) -> None:
        self.index = index
        self.count, self.dim, self.clusters = int(index.ntotal), int(index.d), int(index.nlist)
        self.encoder_fingerprint, self.fingerprint, self.storage = encoder_fingerprint, fingerprint, storage
        self._captions = captions  # a pyarrow table, the path of one, or None
        self._centroids = np.ascontiguousarray(index.quantizer.reconstruct_n(0, self.clusters), np.float32)
        self._centroid_norms = (self._centroids.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
        self._sizes = np.array([index.invlists.list_size(cluster) for cluster in range(self.clusters)])
        self.ready: dict[tuple[float, int] | None, tuple[np.ndarray, np.ndarray]] = {}  # see `_ready_vectors`
        index.make_direct_map(True)  # row → its place in the clusters, to read vectors back

    @classmethod
    def build(
        cls,
        embeddings: Any,
        captions: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        clusters: int | None = None,
        centroids: Any = None,
        seed: int = 0,
        storage: Literal["float32", "float16", "int8"] = "float32",
        iterations: int = 10,
        encoder_fingerprint: str = "",
    ) -> SantaMemory:
        """Cluster embeddings [N, D] (normalised here) and make them searchable.

        clusters: number of k-means centroids, by default √N, but at least 39 rows each (FAISS's advice).
        centroids: [K, D], used as they are instead of k-means. Every row is kept, duplicates too.
        Raises SettingsError when sizes do not fit.
        """
        rows = _array(embeddings)
        if rows.ndim != 2 or not len(rows):
            why = f"their shape is {list(rows.shape)}"
            raise SettingsError("embeddings", why, "give a table of at least one row [N, D]")
        if not np.isfinite(rows).all():
            raise SettingsError("embeddings", "they hold NaN or infinity", "give finite numbers")
        for name, column in (("captions", captions), ("sources", sources)):
            if column is not None and len(column) != len(rows):
                raise SettingsError(name, f"there are {len(column)} for {len(rows)} rows", "give one a row")
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        if centroids is None:
            wanted = clusters or faiss_index.default_clusters(len(rows))
            centers = faiss_index.train_centroids(rows, wanted, seed, iterations)
        else:
            centers = _array(centroids)
            if centers.ndim != 2 or centers.shape[1] != rows.shape[1]:
                why = f"their shape is {list(centers.shape)}"
                raise SettingsError("centroids", why, f"give [clusters, {rows.shape[1]}]")
        index = faiss_index.empty_index(centers, storage, rows)
        faiss_index.fill(index, rows, 0)
        table = _caption_table(captions, sources)
        name = combine([("rows", _hash(rows)), ("centroids", _hash(centers)), ("storage", storage)])
        return cls(index, table, encoder_fingerprint, name, storage)

    def save(self, uri: Uri) -> None:
        """Write the memory's directory, a local one; SettingsError for another."""
        import pyarrow.parquet as pq

        folder = path_of(uri)
        if folder is None:
            remedy = "write to one, and copy it to the store afterwards"
            raise SettingsError("memory", f"{public_uri(uri)} is no local directory", remedy)
        folder.mkdir(parents=True, exist_ok=True)
        self.index.make_direct_map(False)
        faiss_index.write(self.index, folder / "index.faiss")
        self.index.make_direct_map(True)
        table = self._table()
        if table is not None:
            pq.write_table(table, folder / "captions.parquet", compression="zstd")
        self.fingerprint = fingerprint_file(folder / "index.faiss")
        names = ("fingerprint", "encoder_fingerprint", "dim", "count", "clusters", "storage")
        note = {name: getattr(self, name) for name in names}
        if table is not None:
            note["captions_fingerprint"] = fingerprint_file(folder / "captions.parquet")
        (folder / "memory.json").write_text(json.dumps(sealed(note), indent=1) + "\n")

    @classmethod
    def load(cls, uri: Uri, mmap: bool = True) -> SantaMemory:
        """Read a memory's directory. mmap: leave the vectors on disk, shared by all processes of the machine.

        Raises SettingsError when it is missing, broken or not what its memory.json says.
        """
        uri = uri_text(uri)
        folder = local_directory(uri, "memory")
        file, captions = folder / "index.faiss", folder / "captions.parquet"

        def wrong(why: str, remedy: str = 'copy it again, or build it with "mats build-memory"') -> SettingsError:
            return SettingsError("memory", why, remedy)

        try:
            note = read_object(folder / "memory.json", "memory")
            # note: before FAISS reads any of it; the hash of a large file is kept, and made anew when the file changes
            actual = fingerprint_file(file)
            if note.get("fingerprint") not in (None, "", actual):
                raise wrong(f"the index of {uri} is cut short or was changed since its memory.json was written")
            index = faiss_index.open_index(file, mmap)
            found = (index.ntotal, index.d, index.nlist)
            wanted = (note["count"], note["dim"], note["clusters"])
        except SettingsError as error:
            raise wrong(error.problem) from None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise wrong(f"{uri} is no whole memory directory ({first_line(error)})") from error
        if found != wanted:
            raise wrong(f"the index of {uri} has (count, dim, clusters) {found}, and its memory.json says {wanted}")
        made_with = note.get("encoder_fingerprint", "")
        if not isinstance(made_with, str):
            why = f"encoder_fingerprint in the memory.json of {uri} is {made_with!r:.80}, not text"
            raise wrong(why, 'build it again with "mats build-memory"')
        table = captions if captions.is_file() else None
        told = note.get("captions_fingerprint")
        if told is not None and (table is None or told != fingerprint_file(captions)):
            raise wrong(f"captions.parquet of {uri} is gone, or was changed since its memory.json was written")
        try:
            unsealed(note)
        except ValueError as error:
            raise wrong(f"memory.json of {uri} is no longer what it was: {error}") from None
        if table is not None:
            check_captions(table, int(index.ntotal))
        try:
            memory = cls(index, table, made_with, actual, note.get("storage", "float32"))
            rows = memory.vectors(some_rows(memory.count))
        except RuntimeError as error:  # rows of other numbers than 0, 1, …
            raise wrong(f"the index of {uri} does not number its rows ({first_line(error)})") from error
        refuse_alike(rows, f"the memory {uri}", "memory", "embed its captions with another CLAP, and build it again")
        return memory

    def search(self, queries: np.ndarray, neighbors: int, probe: int | str = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows nearest to unit queries [B, D]: (squared L2 distances, rows), both [B, K] in rising order.

        `probe` nearest clusters are searched; where they hold fewer than `neighbors` rows, more are, so that no row is
        ever repeated. K is `neighbors`, or the memory's size where that is less.
        """
        order, _, distances, rows = self._search_in_order(queries, neighbors, probe)  # [B], …, [B, K], [B, K]
        back = np.argsort(order)
        return distances[back], rows[back]

    def _search_in_order(
        self, queries: np.ndarray, neighbors: int, probe: int | str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(order [B], queries[order], distances, rows): as `search`, with those of a cluster one after the other.

        What the one has read, vectors of the index and later its neighbours, the next finds in the core's cache.
        """
        wanted = min(neighbors, self.count)
        queries = np.ascontiguousarray(queries, np.float32)
        least = self.clusters if probe == "all" else min(int(probe), self.clusters)
        clusters = self._clusters(queries, wanted, least)
        order = np.argsort(clusters[:, 0], kind="stable")
        queries = queries[order]
        self.index.nprobe, self.index.parallel_mode = clusters.shape[1], _EACH_QUERY
        distances = np.zeros(clusters.shape, np.float32)  # to the centroids: what is stored is no residual
        found = self.index.search_preassigned(queries, wanted, clusters[order], distances)
        return (order, queries, *found)

    def _clusters(self, queries: np.ndarray, wanted: int, least: int) -> np.ndarray:
        """The clusters to search for each query, nearest first: int64 [B, P], -1 where there is none."""
        unsure = np.arange(len(queries))
        nearest = np.zeros(len(queries), np.int64)
        if least == 1 and self.clusters > 1:
            rough, two = self.index.quantizer.search(queries, 2)
            nearest = two[:, 0]
            unsure = np.flatnonzero((rough[:, 1] - rough[:, 0] < _ROUGH) | (self._sizes[nearest] < wanted))
        clusters = np.full((len(queries), least), -1, np.int64)
        clusters[:, 0] = nearest
        if not len(unsure):
            return clusters
        exact = self._centroid_norms - 2.0 * dot_by_row(queries[unsure], self._centroids, None)
        clusters[unsure] = _smallest(exact, least)
        few = np.flatnonzero(self._sizes[clusters[unsure]].sum(axis=1) < wanted)
        if len(few):
            order = np.argsort(exact[few], axis=1, kind="stable")
            enough = (np.cumsum(self._sizes[order], axis=1) < wanted).sum(axis=1) + 1
            more = int(enough.max())
            clusters = np.pad(clusters, ((0, 0), (0, more - least)), constant_values=-1)
            past = np.arange(more) >= enough[:, None]
            clusters[unsure[few]] = np.where(past, -1, order[:, :more])
        return clusters

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Unit embeddings float32 [..., D] of memory rows int64 [...]."""
        flat = np.ascontiguousarray(rows.reshape(-1), np.int64)
        return self.index.reconstruct_batch(flat).reshape(*rows.shape, self.dim)

    def captions(self, rows: np.ndarray, column: str = "caption") -> list[str]:
        """The captions of memory rows int64 [N], or their `column` source; empty texts where the memory has none."""
        table = self._table()
        return [""] * len(rows) if table is None else table[column].take(rows).to_pylist()

    def transfer(
        self,
        audio_embedding: Any,
        neighbors: int = 32,
        scale: float = 10.0,
        mix: float = 0.3,
        probe: int | Literal["all"] = 1,
        noise: Any = None,
        noise_variance: float = 0.015,
        normalize: bool = True,
        seed: int = 0,
        explain: bool = False,
    ) -> Any:
        """Mix each audio embedding [B, D] (normalised first) with its nearest texts: float32 [B, D].

        weights = softmax(scale · ⟨a, t⟩) over the neighbours t; a' = (1 − mix) · a + mix · Σ weight · t, normalised
        unless `normalize` is False. noise: None for none; "keyed" for each memory row's own draw from (seed, row); or
        standard-normal draws [B, neighbors, D] in order of rising distance. Noisy neighbours are normalised again.
        explain=True returns also, for each row, its neighbours as dicts: row, caption, source, weight, score (cosine
        with the text as stored). Raises ValueError for sizes that do not fit.
        """
        audio = torch.as_tensor(np.asarray(audio_embedding) if isinstance(audio_embedding, list) else audio_embedding)
        audio = F.normalize(audio.float(), dim=-1)
        if audio.ndim != 2 or audio.shape[1] != self.dim:
            raise ValueError(f"audio_embedding must be [B, {self.dim}], got {list(audio.shape)}")
        if isinstance(noise, str) and noise != "keyed":
            raise ValueError(f'noise must be None, "keyed" or draws [B, neighbors, {self.dim}], got {noise!r}')
        if noise is not None and not isinstance(noise, str):
            noise = torch.as_tensor(np.asarray(noise) if isinstance(noise, (list, tuple)) else noise).float()
            wanted = (len(audio), min(neighbors, self.count), self.dim)
            if noise.ndim != 3 or any(size < least for size, least in zip(noise.shape, wanted, strict=True)):
                raise ValueError(f"noise must be [B, neighbors, D] = {list(wanted)}, got {list(noise.shape)}")
        order, queries, distances, rows = self._search_in_order(audio.cpu().numpy(), neighbors, probe)
        asked = torch.from_numpy(queries).to(audio.device)  # [B, D], a cluster's queries together
        keyed = (noise_variance, seed) if isinstance(noise, str) and noise_variance > 0 else None
        if audio.device.type == "cpu" and not isinstance(noise, torch.Tensor):
            # Unit vectors: d² = 2 − 2 cos. Those stored as anything shorter than float32 are not quite that.
            scores = 1.0 - distances / 2.0 if keyed is None and self.storage == "float32" else None
            pulled, weights = self._pull(asked.numpy(), rows, scale, keyed, scores)
        else:
            given = noise[torch.from_numpy(order).to(noise.device)] if isinstance(noise, torch.Tensor) else noise
            pulled, weights = self._pull_on_device(asked, rows, scale, keyed, given, noise_variance)
        mixed = torch.lerp(asked, pulled, mix, out=pulled)
        if normalize:
            F.normalize(mixed, dim=-1, out=mixed)
        back = np.argsort(order)
        if mixed.device.type == "cpu":  # note: numpy takes rows in a quarter of torch's time
            mixed = torch.from_numpy(mixed.numpy()[back])
        else:
            mixed = mixed[torch.from_numpy(back).to(mixed.device)]
        return (mixed, self._explain(rows[back], distances[back], weights[back])) if explain else mixed

    def _pull(
        self,
        audio: np.ndarray,
        rows: np.ndarray,
        scale: float,
        keyed: tuple[float, int] | None,
        scores: np.ndarray | None,
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Weighted sums of neighbours [B, D] and the weights [B, K], on the CPU. scores [B, K]: where known.

        Every row is summed by itself, so it does not depend on its batch, and never as a table [B, K, D]: to write
        that down takes longer than the search.
        """
        ready = self._ready_vectors(rows, keyed)
        if ready is not None:
            return _mix(audio, ready, rows, scale, scores)
        pulled, weights = torch.empty(len(rows), self.dim), np.empty(rows.shape, np.float32)
        step = max(1, _GATHERED // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            chosen = slice(start, start + step)
            part = rows[chosen]
            local = np.arange(part.size, dtype=np.int64).reshape(part.shape)
            texts = self._texts(part.reshape(-1), keyed)
            known = None if scores is None else scores[chosen]
            pulled[chosen], weights[chosen] = _mix(audio[chosen], texts, local, scale, known)
        return pulled, weights

    def _pull_on_device(
        self,
        audio: torch.Tensor,
        rows: np.ndarray,
        scale: float,
        keyed: tuple[float, int] | None,
        noise: Any,
        noise_variance: float,
    ) -> tuple[torch.Tensor, np.ndarray]:
        """As `_pull`, in one go on the audio's device, or with noise that was drawn elsewhere [B, K, D]."""
        texts = torch.from_numpy(self.vectors(rows)).to(audio.device)  # [B, K, D]
        if keyed is not None:
            draws = keyed_normal(keyed[1], torch.from_numpy(rows).to(audio.device), self.dim)
            texts = inject_noise(texts, keyed[0], noise=draws)
        elif isinstance(noise, torch.Tensor):
            texts = inject_noise(texts, noise_variance, noise=noise[:, : rows.shape[1]].to(audio.device))
        weights = torch.softmax(scale * (texts * audio[:, None]).sum(-1), dim=-1)  # [B, K]
        return (weights[..., None] * texts).sum(dim=1), weights.cpu().numpy()

    def _texts(self, rows: np.ndarray, keyed: tuple[float, int] | None) -> np.ndarray:
        """Vectors float32 [N, D] of memory rows [N], with their own noise when (variance, seed) is given."""
        vectors = self.vectors(rows)
        if keyed is not None:
            draws = keyed_normal(keyed[1], torch.from_numpy(np.ascontiguousarray(rows)), self.dim)
            vectors = inject_noise(torch.from_numpy(vectors), keyed[0], noise=draws).numpy()
        return vectors

    def _ready_vectors(self, rows: np.ndarray, keyed: tuple[float, int] | None) -> np.ndarray | None:
        """The vectors of the whole memory [N, D], of which those of `rows` are ready with their noise, which never
        changes; None where the memory is too large to have them all in this process."""
        if self.count * self.dim * 4 > READY_BYTES:
            return None
        if keyed not in self.ready:  # one at a time: settings do not change from row to row
            self.ready = {keyed: (np.empty((self.count, self.dim), np.float32), np.zeros(self.count, bool))}
        vectors, is_ready = self.ready[keyed]
        if not is_ready[rows].all():
            new = np.unique(rows[~is_ready[rows]])
            vectors[new] = self._texts(new, keyed)
            is_ready[new] = True
        return vectors

    def _explain(self, rows: np.ndarray, distances: np.ndarray, weights: np.ndarray) -> list[list[dict[str, Any]]]:
        """The neighbours [B, K] of each query in words and numbers; captions are empty where the memory has none."""
        table = self._table()
        taken = table.take(rows.reshape(-1)) if table is not None else None
        told = [taken[name].to_pylist() if taken is not None else [""] * rows.size for name in ("caption", "source")]
        captions, sources = map(iter, told)
        return [
            [
                {
                    "row": int(row),
                    "caption": next(captions),
                    "source": next(sources),
                    "weight": float(weight),
                    "score": float(1.0 - distance / 2.0),  # unit vectors: d² = 2 − 2 cos
                }
                for row, weight, distance in zip(*columns, strict=True)
            ]
            for columns in zip(rows, weights, distances, strict=True)
        ]

    def _table(self) -> Any:
        if isinstance(self._captions, Path):
            self._captions = read_captions(self._captions, self.count)
        return self._captions


def dot_by_row(queries: np.ndarray, table: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """⟨query b, table row rows[b, k]⟩ as float32 [B, K]; rows None: with every row of the table.

    Pair by pair: a matrix product takes another kernel for larger batches, and its last bits then differ.
    """
    import faiss

    library: Any = faiss  # its wrapper is written at import: type checkers do not see all of it
    queries, table = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(table, np.float32)
    if rows is None:
        rows = np.broadcast_to(np.arange(len(table), dtype=np.int64), (len(queries), len(table)))
    rows = np.ascontiguousarray(rows, np.int64)
    found = np.empty(rows.shape, np.float32)
    library.fvec_inner_products_by_idx(
        *(library.swig_ptr(each) for each in (found, queries, table, rows)), queries.shape[1], *rows.shape
    )
    return found


def _mix(
    audio: np.ndarray, table: np.ndarray, rows: np.ndarray, scale: float, scores: np.ndarray | None
) -> tuple[torch.Tensor, np.ndarray]:
    """Softmax-weighted sums [B, D] of the table's rows [B, K], and the weights [B, K]; scores None: computed here."""
    if scores is None:
        scores = dot_by_row(audio, table, rows)
    raised = np.exp(np.float32(scale) * (scores - scores.max(axis=1, keepdims=True)))
    weights = raised / raised.sum(axis=1, keepdims=True)
    sums = F.embedding_bag(
        torch.from_numpy(rows), torch.from_numpy(table), mode="sum", per_sample_weights=torch.from_numpy(weights)
    )
    return sums, weights


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` smallest values of each row, in rising order: int64 [B, count]."""
    if count == 1:
        return np.argmin(values, axis=1)[:, None]
    if count >= values.shape[1]:
        return np.argsort(values, axis=1, kind="stable")
    chosen = np.sort(np.argpartition(values, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(np.take_along_axis(values, chosen, 1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, 1)


def _array(values: Any) -> np.ndarray:
    plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    return np.ascontiguousarray(plain, dtype=np.float32)


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _caption_table(captions: Sequence[str] | None, sources: Sequence[str] | None) -> Any:
    if captions is None:
        return None
    import pyarrow as pa

    texts = {"caption": captions, "source": sources or [""] * len(captions)}
    return pa.table({name: pa.array(column, pa.string()) for name, column in texts.items()})
