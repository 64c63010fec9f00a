"""Santa: move an audio embedding towards real text embeddings held in a memory (MATS paper, section 3.3).

A memory is a directory: `index.faiss` (IVF; its k-means centroids are Santa's clusters), `captions.parquet`
(row i of the index ↔ caption, source) and `memory.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from mats_core.errors import SettingsError
from mats_core.fingerprint import combine, fingerprint_file
from mats_core.noise import inject_noise, keyed_normal

_BLOCK = 65_536  # rows handled at once while building


class SantaMemory:
    """Text embeddings searched by cluster. Make one with `build` or `load`.

    Attributes: count, dim, clusters; encoder_fingerprint ("" when not known); fingerprint.
    """

    def __init__(self, index: Any, captions: Any, encoder_fingerprint: str, fingerprint: str, storage: str) -> None:
        self.index = index
        self.count, self.dim, self.clusters = int(index.ntotal), int(index.d), int(index.nlist)
        self.encoder_fingerprint, self.fingerprint, self.storage = encoder_fingerprint, fingerprint, storage
        self._captions = captions  # a pyarrow table, the path of one, or None
        self._centroids = index.quantizer.reconstruct_n(0, self.clusters).astype(np.float64)
        self._centroid_norms = (self._centroids**2).sum(axis=1)
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
        storage: Literal["float16", "float32"] = "float32",
        iterations: int = 10,
        encoder_fingerprint: str = "",
    ) -> SantaMemory:
        """Cluster embeddings [N, D] (normalised here) and make them searchable.

        clusters: number of k-means centroids, by default √N, but at least 39 rows each (FAISS's advice).
        centroids: [K, D], used as they are instead of k-means. Every row is kept, duplicates too.
        Raises SettingsError when sizes do not fit.
        """
        import faiss

        rows = _array(embeddings)
        if rows.ndim != 2 or not len(rows):
            raise SettingsError("embeddings", list(rows.shape), "a table of at least one row [N, D]")
        if not np.isfinite(rows).all():
            raise SettingsError("embeddings", "NaN or infinity", "finite numbers")
        for name, column in (("captions", captions), ("sources", sources)):
            if column is not None and len(column) != len(rows):
                raise SettingsError(name, f"{len(column)} of them", f"{len(rows)}, one a row")
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        dim = rows.shape[1]
        if centroids is None:
            wanted = clusters or min(max(round(math.sqrt(len(rows))), 1), max(len(rows) // 39, 1))
            if not 1 <= wanted <= len(rows):
                raise SettingsError("clusters", clusters, f"1 to {len(rows)}, the number of rows")
            means = faiss.Kmeans(dim, wanted, niter=iterations, seed=seed + 1, min_points_per_centroid=1)
            means.train(rows)
            centers = means.centroids
        else:
            centers = _array(centroids)
            if centers.ndim != 2 or centers.shape[1] != dim:
                raise SettingsError("centroids", list(centers.shape), f"[clusters, {dim}]")
        quantizer = faiss.IndexFlatL2(dim)
        quantizer.add(np.ascontiguousarray(centers))
        index: Any
        centers = _array(centers)
        if storage == "float32":
            index = faiss.IndexIVFFlat(quantizer, dim, len(centers), faiss.METRIC_L2)
        elif storage == "float16":
            kind = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexIVFScalarQuantizer(quantizer, dim, len(centers), kind, faiss.METRIC_L2, False)
        else:
            raise SettingsError("storage", storage, "float16, float32")
        index.train(rows)  # the centroids are given, so this only marks the index as trained
        for start in range(0, len(rows), _BLOCK):
            index.add(rows[start : start + _BLOCK])
        index.quantizer = quantizer  # keeps Python's reference alive
        table = _caption_table(captions, sources)
        name = combine([("rows", _hash(rows)), ("centroids", _hash(centers)), ("storage", storage)])
        return cls(index, table, encoder_fingerprint, name, storage)

    def save(self, uri: str) -> None:
        """Write the memory's directory."""
        import faiss
        import pyarrow.parquet as pq

        folder = Path(uri.removeprefix("file://"))
        folder.mkdir(parents=True, exist_ok=True)
        self.index.make_direct_map(False)
        faiss.write_index(self.index, str(folder / "index.faiss"))
        self.index.make_direct_map(True)
        table = self._table()
        if table is not None:
            pq.write_table(table, folder / "captions.parquet", compression="zstd")
        note: dict[str, Any] = {
            "fingerprint": fingerprint_file(folder / "index.faiss"),
            "encoder_fingerprint": self.encoder_fingerprint,
            "dim": self.dim,
            "count": self.count,
            "clusters": self.clusters,
            "storage": self.storage,
        }
        self.fingerprint = note["fingerprint"]
        (folder / "memory.json").write_text(json.dumps(note, indent=1) + "\n")

    @classmethod
    def load(cls, uri: str, mmap: bool = True) -> SantaMemory:
        """Read a memory's directory. mmap: leave the vectors on disk, shared by all processes of the machine.

        Raises SettingsError when it is missing, broken or not what its memory.json says.
        """
        import faiss

        from mats_core.fetch import local_directory

        folder = local_directory(uri, "memory")
        try:
            note = json.loads((folder / "memory.json").read_bytes())
            index: Any = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP if mmap else 0)
            found = (index.ntotal, index.d, index.nlist)
            wanted = (note["count"], note["dim"], note["clusters"])
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            first = (str(error).splitlines() or [""])[0][:200]
            raise SettingsError("memory", uri, f"a whole memory directory ({first})") from error
        if found != wanted:
            raise SettingsError("memory", uri, f"an index of (count, dim, clusters) {wanted}, not {found}")
        actual = fingerprint_file(folder / "index.faiss")
        if note.get("fingerprint") not in (None, "", actual):
            raise SettingsError("memory", uri, "the index its memory.json was written with; this one has changed")
        captions = folder / "captions.parquet"
        return cls(
            index,
            captions if captions.is_file() else None,
            note.get("encoder_fingerprint", ""),
            actual,
            note.get("storage", "float32"),
        )

    def search(self, queries: np.ndarray, neighbors: int, probe: int | str = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows nearest to unit queries [B, D]: (squared L2 distances, rows), both [B, K] in rising order.

        `probe` nearest clusters are searched; where they hold fewer than `neighbors` rows, more are, so that no row is
        ever repeated. K is `neighbors`, or the memory's size where that is less.
        """
        wanted = min(neighbors, self.count)
        queries = np.ascontiguousarray(queries, np.float32)
        # Coarse distances in float64 by hand: FAISS picks another kernel for larger batches, and the last
        # bit could then choose another cluster.
        coarse = self._centroid_norms - 2.0 * (queries.astype(np.float64) @ self._centroids.T)
        order = np.argsort(coarse, axis=1, kind="stable")
        sizes = np.array([self.index.get_list_size(cluster) for cluster in range(self.clusters)])
        least = self.clusters if probe == "all" else min(int(probe), self.clusters)
        enough = (np.cumsum(sizes[order], axis=1) < wanted).sum(axis=1) + 1
        searched = np.maximum(enough, least)
        distances = np.empty((len(queries), wanted), np.float32)
        rows = np.empty((len(queries), wanted), np.int64)
        for count in np.unique(searched):
            chosen = np.flatnonzero(searched == count)
            clusters = np.ascontiguousarray(order[chosen, :count])
            self.index.nprobe = int(count)
            near = np.ascontiguousarray(np.take_along_axis(coarse[chosen], clusters, 1), np.float32)
            distances[chosen], rows[chosen] = self.index.search_preassigned(queries[chosen], wanted, clusters, near)
        return distances, rows

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Unit embeddings float32 [..., D] of memory rows int64 [...]."""
        flat = np.ascontiguousarray(rows.reshape(-1), np.int64)
        return self.index.reconstruct_batch(flat).reshape(*rows.shape, self.dim)

    def transfer(
        self,
        audio_embedding: Any,
        neighbors: int = 32,
        scale: float = 10.0,
        mix: float = 0.3,
        probe: int | Literal["all"] = 1,
        noise: torch.Tensor | Literal["keyed"] | None = None,
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
        with the text as stored).
        """
        audio = torch.as_tensor(np.asarray(audio_embedding) if isinstance(audio_embedding, list) else audio_embedding)
        audio = F.normalize(audio.float(), dim=-1)
        if audio.ndim != 2 or audio.shape[1] != self.dim:
            raise ValueError(f"audio_embedding must be [B, {self.dim}], got {list(audio.shape)}")
        distances, rows = self.search(audio.cpu().numpy(), neighbors, probe)
        clean = torch.from_numpy(self.vectors(rows)).to(audio.device)  # [B, K, D]
        texts = clean
        if isinstance(noise, str):
            if noise != "keyed":
                raise ValueError(f'noise must be None, "keyed" or a tensor, got {noise!r}')
            if noise_variance > 0:
                draws = keyed_normal(seed, torch.from_numpy(rows).to(audio.device), self.dim)
                texts = inject_noise(clean, noise_variance, noise=draws)
        elif noise is not None:
            texts = inject_noise(clean, noise_variance, noise=noise[:, : rows.shape[1]].to(audio.device))
        weights = torch.softmax(scale * (texts * audio[:, None]).sum(-1), dim=-1)
        mixed = (1.0 - mix) * audio + mix * (weights[..., None] * texts).sum(dim=1)
        if normalize:
            mixed = F.normalize(mixed, dim=-1)
        return (mixed, self._explain(rows, distances, weights.cpu().numpy())) if explain else mixed

    def _explain(self, rows: np.ndarray, distances: np.ndarray, weights: np.ndarray) -> list[list[dict[str, Any]]]:
        table = self._table()
        flat = rows.reshape(-1)
        if table is None:
            captions, sources = [""] * len(flat), [""] * len(flat)
        else:
            taken = table.take(flat)
            captions, sources = taken["caption"].to_pylist(), taken["source"].to_pylist()
        found, width = [], rows.shape[1]
        for at in range(len(rows)):
            found.append(
                [
                    {
                        "row": int(rows[at, k]),
                        "caption": captions[at * width + k],
                        "source": sources[at * width + k],
                        "weight": float(weights[at, k]),
                        "score": float(1.0 - distances[at, k] / 2.0),  # unit vectors: d² = 2 − 2 cos
                    }
                    for k in range(width)
                ]
            )
        return found

    def _table(self) -> Any:
        if isinstance(self._captions, Path):
            import pyarrow.parquet as pq

            self._captions = pq.read_table(self._captions)
        return self._captions


def _array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.ascontiguousarray(values, dtype=np.float32)


def _hash(values: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _caption_table(captions: Sequence[str] | None, sources: Sequence[str] | None) -> Any:
    if captions is None:
        return None
    import pyarrow as pa

    return pa.table(
        {"caption": pa.array(captions, pa.string()), "source": pa.array(sources or [""] * len(captions), pa.string())}
    )
