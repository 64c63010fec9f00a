"""The directory of a memory: merged out of its shards, and put in the place of an older one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from mats_core.storage.fingerprint import hash_file, sealed
from pipelines.cluster.progress import peak_mb
from pipelines.data import parquet
from pipelines.data.schemas import Columns, schema_of
from pipelines.output.folder import Output
from pipelines.text.memory_shards import shard_uri

MEMORY_COLUMNS: Columns = {
    "caption": (pa.string(), "The text of this row of the index."),
    "source": (pa.string(), "The first of the sources that it comes from."),
}
FILES = ("memory.json", "index.faiss", "captions.parquet")
"""Put in place in this order: a run that is killed meanwhile leaves files that are known to be a memory's."""


def shards_folder(out: Output) -> str:
    """Where this run's shards are until they are merged."""
    return out.join("_state", f"shards-{out.run_id}")


def check_replaceable(output: str) -> None:
    """Raise SettingsError where OUTPUT holds a file of a memory's names that no build of a memory has written."""
    try:
        there = [name for name in FILES if storage.exists(storage.join(output, name))]
    except storage.StorageError:
        return  # an OUTPUT that cannot be written is told of later
    try:
        note = json.loads(storage.read_bytes(storage.join(output, "memory.json"))) if there else None
    except (storage.StorageError, ValueError):
        note = None
    if there and not (isinstance(note, dict) and {"fingerprint", "encoder_fingerprint"} <= note.keys()):
        problem = f"{there[0]} in {storage.public_uri(output)} is of no memory that `mats build-memory` wrote"
        raise SettingsError("output", problem, "move it away, or choose another folder")


def write_memory(out: Output, empty: Any, shards: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the shards 0 … `shards` - 1 into a memory, and put it into OUTPUT; returns what its memory.json says.
    empty: the trained index without vectors, of `faiss_index.empty_index`. facts: what memory.json says besides what is
    known here. Raises StorageError where that cannot be written; an old memory in OUTPUT is then as it was."""
    folder, output = shards_folder(out), out.uri
    try:
        # note: inside OUTPUT where that is local, so that moving is renaming
        with tempfile.TemporaryDirectory(prefix=f"memory-{out.run_id}-", dir=_local_state(output)) as folder_name:
            place = Path(folder_name)
            local = [_local(shard_uri(folder, n, "faiss"), place) for n in range(shards)]
            fingerprint = faiss_index.merge_shards(empty, local, place / "index.faiss")
            _write_captions([shard_uri(folder, n, "captions.parquet") for n in range(shards)], place / FILES[2])
            size = (place / "index.faiss").stat().st_size
            note = {"fingerprint": fingerprint, **facts, "clusters": int(empty.nlist), "index_bytes": size}
            note |= {"captions_fingerprint": hash_file(place / FILES[2]), "driver_peak_mb": peak_mb()}
            (place / "memory.json").write_text(json.dumps(sealed(note), indent=1, ensure_ascii=False) + "\n")
            _put_memory(place, out)
            return note
    except (OSError, pa.ArrowException) as error:  # a full disk, say
        raise storage.error_from(error, output) from None


def _local_state(output: str) -> Path | None:
    """OUTPUT/_state where that is a local folder."""
    path = storage.local_path(output)
    return Path(path.decode(errors="surrogateescape")) / "_state" if path is not None else None


def _local(uri: str, place: Path) -> Path:
    """A file to map into memory: itself, or a copy of a remote one."""
    path = storage.local_path(uri)
    if path is not None:
        return Path(path.decode(errors="surrogateescape"))
    copy = place / uri.rsplit("/", 1)[-1]
    copy.write_bytes(storage.read_bytes(uri))
    return copy


def _put_memory(made: Path, out: Output) -> None:
    """Switch OUTPUT to the memory in `made`, a folder on its disk: first memory.json, then index and captions.

    Locally that is three renames, which need no room. To a store the files are uploaded beside the old ones first, and
    the store copies them into place. What fails until then leaves the old memory as it was; a kill between two of the
    three, or a run that lost OUTPUT and puts one more in place, leaves a memory.json that names other files, which
    `SantaMemory.load` refuses until the memory is built again. Raises LeaseLost.
    """
    place = storage.local_path(out.uri)
    if place is not None:
        for name in FILES:
            with (made / name).open("rb+") as file:
                os.fsync(file.fileno())  # a disk that is full may say so only here
        for name in FILES:
            out.check()
            os.replace(made / name, os.path.join(place, name.encode()))
        out.check()
        return
    beside = out.join("_state", f"next-{out.run_id}")
    storage.make_dirs(beside)
    try:
        for name in FILES:
            _in_store("put_file", str(made / name), storage.join(beside, name))
        for name in FILES:
            out.check()
            _in_store("cp_file", storage.filesystem(storage.join(beside, name))[1], out.join(name))
        out.check()
    finally:
        storage.remove_tree(beside)


def _in_store(method: str, source: str, uri: str) -> None:
    """Make the file `uri` out of `source` by a method of its file system."""
    fs, name = storage.filesystem(uri)
    try:
        getattr(fs, method)(source, name)
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise storage.error_from(error, uri) from None


def _write_captions(parts: list[str], target: Path) -> None:
    """captions.parquet: row i is the text of row i of the index."""
    schema = schema_of(MEMORY_COLUMNS)
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for uri in parts:
            writer.write_table(parquet.read(uri, schema.names).cast(schema))
