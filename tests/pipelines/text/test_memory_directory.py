"""A memory is put in place whole: a full disk or a broken upload leaves the old one."""

from __future__ import annotations

import errno
import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from mats_core.memory.santa import SantaMemory
from mats_core.storage import StorageError
from pipelines.output.folder import Output
from pipelines.output.lease import LeaseLost
from pipelines.text.memory_directory import check_replaceable, shards_folder, write_memory
from pipelines.text.memory_shards import Piece, Selection, fill_shard, unit_rows

FACTS = {"encoder_fingerprint": "e" * 64, "dim": 4, "count": 100, "storage": "float32"}


def held(output: str) -> Output:
    """OUTPUT as the run that took it over last sees it."""
    out = Output(output, uuid.uuid4().hex[:12])
    out.lease.acquire()
    out.lease.release()
    return out


def fill(table: Path, output: Output, seed: int = 0) -> Any:
    """The one shard of a table of one part, below `output`, and the index without vectors that it was filled into."""
    piece = Piece(str(table / "embeddings" / "part-00000.parquet"), 0, 100)
    sample = unit_rows(pq.read_table(piece.uri)["embedding"])
    empty = faiss_index.empty_index(faiss_index.train_centroids(sample, 4, seed), "float32", sample)
    work = pa.table({"number": [0], "first": [0], "pieces": [[asdict(piece)]]})
    fill_shard(work, Selection(None, 0), faiss_index.to_bytes(empty), shards_folder(output))
    return empty


def build(table: Path, output: str, seed: int = 0) -> dict[str, Any]:
    """What `mats build-memory` does to a table of one part, with no Ray."""
    out = held(output)
    return write_memory(out, fill(table, out, seed), 1, FACTS)


@pytest.mark.parametrize("placed", [1, 2])
def test_one_killed_while_it_puts_its_files_in_place_is_built_again(
    table: Path, monkeypatch: pytest.MonkeyPatch, placed: int
) -> None:
    output, replace, done = str(table / "memory"), os.replace, list[str]()

    def killed(source: Any, target: Any) -> None:
        if len(done) == placed:
            raise SystemExit
        replace(source, target)
        done.append(os.fsdecode(os.path.basename(target)))

    out = held(output)
    empty = fill(table, out)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(SystemExit):
            write_memory(out, empty, 1, FACTS)
    with pytest.raises(SettingsError):
        SantaMemory.load(output)
    check_replaceable(output)
    note = build(table, output)
    assert SantaMemory.load(output).fingerprint == note["fingerprint"]


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
    out = held(str(output))
    empty = fill(table, out, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(StorageError, match="No space left on device"):
            write_memory(out, empty, 1, FACTS)
    assert SantaMemory.load(str(output)).fingerprint == old["fingerprint"]
    assert not list((output / "_state").glob("memory-*"))
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
    assert not [info for info in storage.list_files(storage.join(output, "_state")) if info.path.startswith("next")]


def test_a_run_that_lost_the_output_puts_nothing_more_in_place(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen before one of its three files is in place; meanwhile another run builds its memory."""
    output = str(table / "memory")
    real = os.replace
    for place in range(3):
        first = held(output)
        empty = fill(table, first)
        seen: list[str] = []

        def replace(draft: Any, target: Any, place: int = place, seen: list[str] = seen) -> None:
            if os.fsdecode(target).rpartition("/")[0] == output:
                seen.append(target)
                if len(seen) == place + 1:
                    with monkeypatch.context() as patch:
                        patch.setattr(os, "replace", real)
                        build(table, output, seed=1)
            real(draft, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(LeaseLost, match="another run took this OUTPUT over"):
                write_memory(first, empty, 1, FACTS)
        assert len(seen) == place + 1
        if place < 2:
            with pytest.raises(SettingsError, match=r"was changed since its memory.json was written"):
                SantaMemory.load(output)
        else:
            SantaMemory.load(output)  # the captions are of the same table
    new = build(table, output, seed=1)
    assert SantaMemory.load(output).fingerprint == new["fingerprint"]
    captions = table / "memory" / "captions.parquet"
    captions.write_bytes(captions.read_bytes() + b"x")
    with pytest.raises(SettingsError, match=r"captions.parquet of .* was changed since"):
        SantaMemory.load(output)
