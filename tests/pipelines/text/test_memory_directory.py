"""A memory is put in place whole: a full disk or a broken upload leaves the old one."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.memory import faiss_index
from mats_core.memory.santa import SantaMemory
from mats_core.storage import StorageError
from pipelines.text.memory_directory import SHARDS, write_memory
from pipelines.text.memory_shards import Piece, Selection, fill_shard, unit_rows

FACTS = {"encoder_fingerprint": "e" * 64, "dim": 4, "count": 100, "storage": "float32"}


def fill(table: Path, output: str, seed: int = 0) -> Any:
    """The one shard of a table of one part, below `output`, and the index without vectors that it was filled into."""
    piece = Piece(str(table / "embeddings" / "part-00000.parquet"), 0, 100)
    sample = unit_rows(pq.read_table(piece.uri)["embedding"])
    empty = faiss_index.empty_index(faiss_index.train_centroids(sample, 4, seed), "float32", sample)
    work = pa.table({"number": [0], "first": [0], "pieces": [[asdict(piece)]]})
    fill_shard(work, Selection(None, 0), faiss_index.to_bytes(empty), storage.join(output, *SHARDS))
    return empty


def build(table: Path, output: str, seed: int = 0) -> dict[str, Any]:
    """What `mats build-memory` does to a table of one part, with no Ray."""
    return write_memory(output, fill(table, output, seed), 1, FACTS)


@pytest.mark.parametrize(
    "where",
    [
        "mats_core.memory.faiss_index.merge_shards",
        "pyarrow.parquet.ParquetWriter.write_table",
        "os.fsync",
        "os.replace",
    ],
)
def test_a_full_disk_leaves_the_old_memory(table: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = table / "memory"
    old = build(table, str(output))
    empty = fill(table, str(output), seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(StorageError, match="No space left on device"):
            write_memory(str(output), empty, 1, FACTS)
    assert SantaMemory.load(str(output)).fingerprint == old["fingerprint"]
    assert sorted(path.name for path in (output / "_state").iterdir()) == ["shards"]
    new = build(table, str(output), seed=1)
    assert SantaMemory.load(str(output)).fingerprint == new["fingerprint"] != old["fingerprint"]


def test_an_upload_that_fails_leaves_the_old_memory(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    output = "memory://a-memory-of-a-test"
    build(table, output)
    names = ("index.faiss", "captions.parquet", "memory.json")
    before = [storage.read_bytes(storage.join(output, name)) for name in names]
    real = MemoryFileSystem.put_file

    def put_file(self: MemoryFileSystem, source: str, target: str, **more: Any) -> None:
        if target.endswith("memory.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, source, target, **more)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", put_file)
        with pytest.raises(StorageError, match="No space left on device"):
            build(table, output, seed=1)
    assert [storage.read_bytes(storage.join(output, name)) for name in names] == before
    build(table, output, seed=1)
    after = [storage.read_bytes(storage.join(output, name)) for name in names]
    assert all(a != b for a, b in zip(before[::2], after[::2], strict=True))
    assert not storage.exists(storage.join(output, "_state", "next"))
