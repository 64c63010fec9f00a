"""What the workers of `mats embed-text` do: read files into captions by bucket, and embed a bucket into its part."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mats_core import storage
from mats_core.spread import refuse_collapsed
from pipelines.data import generations, parquet
from pipelines.data.corpus import FileReport, read_corpus
from pipelines.data.schemas import Columns, schema_of
from pipelines.output.lease import check_generation

CAPTION_COLUMNS: Columns = {
    "caption_id": (pa.string(), "Hash of the caption, normalised (NFC, stripped, runs of space collapsed)."),
    "caption": (pa.string(), "The caption as it was first read; of a long sound, a line for each of its windows."),
    "sources": (pa.list_(pa.string()), "Where it comes from: the records' `source`, else the file."),
    "count": (pa.int64(), "How many records have it."),
}
CAPTION_SCHEMA = schema_of(CAPTION_COLUMNS)
EMBEDDING = (
    "The caption's unit vector (of several lines: their mean, normalised), a fixed-size list of float16, as long as "
    "the encoder's space has dimensions."
)
COMBINE = 50_000
"""Distinct captions a reading task holds before it sends them on."""


@dataclass
class Caption:
    """A distinct caption: where it comes from, and how many records have it."""

    caption: str
    sources: set[str]
    count: int = 0


def bucket_of(caption_id: str, buckets: int) -> int:
    """The bucket of a caption: ids are hashes, so buckets are even."""
    return int(caption_id[:15], 16) % buckets


def part_name(bucket: int, run_id: str = "") -> str:
    """The part file of a bucket, by the run that writes it (`data.generations`)."""
    return f"part-{bucket:05d}{run_id and '-'}{run_id}.parquet"


def bucket_of_part(name: str) -> int:
    """The bucket of a part file; the inverse of `part_name`."""
    return int(name.rsplit("part-", 1)[1].removesuffix(".parquet").partition("-")[0])


def read_corpora(
    files: pa.Table, columns: dict[str, str], buckets: int, done: Collection[int], reports: str
) -> Iterator[pa.Table]:
    """Captions of files (columns `uri` and `number`), distinct within each table, less those of buckets that are done.

    What was found in a file goes to `reports`/`number`.json: a FileReport, and as `done` the records left out.
    """
    finished = set(done)
    for file in files.to_pylist():
        report, left_out = FileReport(file["uri"]), 0
        found: dict[str, Caption] = {}
        for record in read_corpus(file["uri"], report, columns, complete=False):
            if finished and bucket_of(record["caption_id"], buckets) in finished:
                left_out += 1
                continue
            _add(found, record["caption_id"], record["caption"], (record["source"],), 1)
            if len(found) >= COMBINE:
                yield _bucket_table(found, buckets)
                found = {}
        if found:
            yield _bucket_table(found, buckets)
        told = json.dumps({**vars(report), "done": left_out})
        storage.write_bytes(storage.join(reports, f"{file['number']}.json"), told.encode())


def _add(found: dict[str, Caption], key: str, text: str, sources: Iterable[str], count: int) -> None:
    caption = found.setdefault(key, Caption(text, set()))
    caption.sources.update(sources)
    caption.count += count


def caption_table(captions: Mapping[str, Caption]) -> pa.Table:
    """Captions by their ids as rows of CAPTION_SCHEMA."""
    rows = [(key, each.caption, sorted(each.sources), each.count) for key, each in captions.items()]
    columns = [pa.array(values, f.type) for values, f in zip(zip(*rows, strict=True), CAPTION_SCHEMA, strict=True)]
    return pa.table(columns, schema=CAPTION_SCHEMA)


def _bucket_table(found: dict[str, Caption], buckets: int) -> pa.Table:
    own = pa.array([bucket_of(key, buckets) for key in found], pa.int32())
    return caption_table(found).add_column(0, "bucket", own)


def distinct(rows: pa.Table) -> pa.Table:
    """One row of CAPTION_SCHEMA an id, in the order of ids."""
    found: dict[str, Caption] = {}
    for row in zip(*(rows[name].to_pylist() for name in CAPTION_SCHEMA.names), strict=True):
        _add(found, *row)
    return caption_table(dict(sorted(found.items())))


class EmbedBucket:
    """All rows of one bucket → its part file; returns a row of counts. parts: folder of the part files. encoder: what
    `load_encoder` takes, or one with `embed_text(texts) -> Tensor[N, dim]`. run_id: of the run that writes."""

    def __init__(
        self, parts: str, encoder: Any, dim: int, device: str = "auto", batch_size: int = 128, run_id: str = ""
    ) -> None:
        import torch

        from mats_core.encoders.load import load_encoder

        # note: one thread a process on a CPU, however many processes: with another number the sums of a matrix product
        # may be taken in another order, and a caption's last bit would depend on --actors
        torch.set_num_threads(1)
        self.parts, self.run_id, self.dim, self.batch_size = parts, run_id, dim, batch_size
        self.encoder = load_encoder(encoder, device) if isinstance(encoder, str) else encoder
        self.untried = encoder if isinstance(encoder, str) else None

    def __call__(self, rows: pa.Table) -> pa.Table:
        began = time.time()
        if self.untried is not None:  # note: not in __init__, what Ray tries four times
            refuse_collapsed(self.encoder, storage.public_uri(self.untried))
            self.untried = None
        bucket = rows["bucket"][0].as_py()
        captions = distinct(rows)
        table = embedding_table(captions, self._embed(captions["caption"].to_pylist()))
        output, place = generations.place_of(self.parts)
        check_generation(output, self.run_id)
        name = part_name(bucket, self.run_id)
        parquet.write(storage.join(self.parts, name), table, row_group_size=16_384)
        check_generation(output, self.run_id, f"{place}/{name}")
        counts = {"bucket": bucket, "captions": len(captions), "records": sum(captions["count"].to_pylist())}
        return pa.Table.from_pylist([{**counts, "began_at": began, "ended_at": time.time()}])

    def _embed(self, texts: list[str]) -> np.ndarray:
        """float16 [N, dim], a text of several lines as the mean of its lines. Texts of like length go together, so that
        little is padding, and always the same ones."""
        from mats_core.encoders.base import embed_captions

        out = np.empty((len(texts), self.dim), np.float16)
        order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), texts[at]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            vectors = embed_captions(self.encoder.embed_text, [texts[at].split("\n") for at in chosen]).numpy()
            if not np.isfinite(vectors).all():
                raise ValueError(f"the encoder made NaN or infinity of one of {[texts[at] for at in chosen][:3]}")
            out[chosen] = vectors
        return out


def embedding_table(captions: pa.Table, vectors: np.ndarray) -> pa.Table:
    """The rows of DESIGN.md's caption embeddings: rows of CAPTION_SCHEMA with their vectors, float16 [N, dim]."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    return captions.add_column(2, "embedding", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
