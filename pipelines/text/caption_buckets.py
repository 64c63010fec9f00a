"""What the workers of `mats embed-text` do: read files into captions by bucket, and embed a bucket into its part."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from pipelines.data import parquet
from pipelines.data.corpus import FileReport, read_corpus

BUCKET_SCHEMA = pa.schema(
    [
        ("bucket", pa.int32()),
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("count", pa.int64()),
    ]
)
COMBINE = 50_000
"""Distinct captions a reading task holds before it sends them on."""


@dataclass
class TextSpec:
    """What an encoder actor must know; plain data.

    parts: folder of the part files. encoder, device: what `load_encoder` takes. dim: of its embeddings. buckets: how
    many there are; done: those whose parts are there.
    """

    parts: str
    encoder: str
    dim: int
    device: str = "auto"
    batch_size: int = 128
    buckets: int = 1
    done: list[int] = field(default_factory=list)


@dataclass
class Caption:
    """A distinct caption: where it comes from, and how many records have it."""

    caption: str
    sources: set[str]
    count: int = 0


def bucket_of(caption_id: str, buckets: int) -> int:
    """The bucket of a caption: ids are hashes, so buckets are even."""
    return int(caption_id[:15], 16) % buckets


def part_name(bucket: int) -> str:
    """The part file of a bucket."""
    return f"part-{bucket:05d}.parquet"


def bucket_of_part(name: str) -> int:
    """The bucket of a part file; the inverse of `part_name`."""
    return int(name.rsplit("part-", 1)[1].removesuffix(".parquet"))


def read_corpora(
    files: pa.Table, columns: dict[str, str], buckets: int, done: Collection[int], reports: str
) -> Iterator[pa.Table]:
    """Captions of files (columns `uri` and `number`), distinct within each table, less those of buckets that are done.

    What was found in a file goes to `reports`/`number`.json: a FileReport, and as `done` the records left out.
    """
    finished = set(done)
    for uri, number in zip(files["uri"].to_pylist(), files["number"].to_pylist(), strict=True):
        report, left_out = FileReport(uri), 0
        found: dict[str, Caption] = {}
        for record in read_corpus(uri, report, columns, complete=False):
            if finished and bucket_of(record["caption_id"], buckets) in finished:
                left_out += 1
                continue
            caption = found.setdefault(record["caption_id"], Caption(record["caption"], set()))
            caption.sources.add(record["source"])
            caption.count += 1
            if len(found) >= COMBINE:
                yield _bucket_table(found, buckets)
                found = {}
        if found:
            yield _bucket_table(found, buckets)
        found_in = {"uri": uri, "records": report.records, "problems": report.problems, "lines": report.lines}
        storage.write_bytes(report_uri(reports, number), json.dumps({**found_in, "done": left_out}).encode())


def report_uri(folder: str, number: int) -> str:
    """Where the report of a file is."""
    return storage.join(folder, f"{number}.json")


def _bucket_table(found: dict[str, Caption], buckets: int) -> pa.Table:
    columns: list[Any] = [
        [bucket_of(each, buckets) for each in found],
        list(found),
        [each.caption for each in found.values()],
        [sorted(each.sources) for each in found.values()],
        [each.count for each in found.values()],
    ]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, BUCKET_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=BUCKET_SCHEMA)


def distinct(rows: pa.Table) -> list[tuple[str, Caption]]:
    """One Caption an id, in the order of ids."""
    found: dict[str, Caption] = {}
    names = ("caption_id", "caption", "sources", "count")
    for key, text, sources, count in zip(*(rows[name].to_pylist() for name in names), strict=True):
        caption = found.setdefault(key, Caption(text, set()))
        caption.sources.update(sources)
        caption.count += count
    return sorted(found.items())


class EmbedBucket:
    """All rows of one bucket → its part file; returns a row of counts.

    encoder: with `embed_text(texts) -> Tensor[N, dim]`; the one that `spec` names is loaded where none is given.
    """

    def __init__(self, spec: TextSpec, encoder: Any = None) -> None:
        import torch

        from mats_core.encoders.load import load_encoder

        # note: one thread a process on a CPU, however many processes: with another number the sums of a matrix product
        # may be taken in another order, and a caption's last bit would depend on --actors
        torch.set_num_threads(1)
        self.spec = spec
        self.encoder = encoder or load_encoder(spec.encoder, spec.device)

    def __call__(self, rows: pa.Table) -> pa.Table:
        began = time.time()
        bucket = rows["bucket"][0].as_py()
        captions = distinct(rows)
        vectors = self._embed([caption.caption for _, caption in captions])
        part = storage.join(self.spec.parts, part_name(bucket))
        parquet.write(part, embedding_table(captions, vectors), row_group_size=16_384)
        ended = time.time()
        counts = {
            "bucket": bucket,
            "captions": len(captions),
            "records": sum(caption.count for _, caption in captions),
            "embed_s": ended - began,
            "began_at": began,
            "ended_at": ended,
        }
        return pa.table({name: [value] for name, value in counts.items()})

    def _embed(self, texts: list[str]) -> np.ndarray:
        """float16 [N, dim]. Texts of like length go together, so that little is padding, and always the same ones."""
        out = np.empty((len(texts), self.spec.dim), np.float16)
        order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), texts[at]))
        for start in range(0, len(order), self.spec.batch_size):
            chosen = order[start : start + self.spec.batch_size]
            vectors = self.encoder.embed_text([texts[at] for at in chosen]).float().cpu().numpy()
            if not np.isfinite(vectors).all():
                raise ValueError(f"the encoder made NaN or infinity of one of {[texts[at] for at in chosen][:3]}")
            out[chosen] = vectors
        return out


def embedding_table(captions: list[tuple[str, Caption]], vectors: np.ndarray) -> pa.Table:
    """The rows of DESIGN.md's caption embeddings; vectors float16 [N, dim]."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    return pa.table(
        {
            "caption_id": pa.array([key for key, _ in captions], pa.string()),
            "caption": pa.array([each.caption for _, each in captions], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "sources": pa.array([sorted(each.sources) for _, each in captions], pa.list_(pa.string())),
            "count": pa.array([each.count for _, each in captions], pa.int64()),
        }
    )
