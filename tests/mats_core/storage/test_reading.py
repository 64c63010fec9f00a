"""What is written is read again, the same on disk and in a store, and another file in its place is told."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.storage import StorageError


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_is_written_is_read_and_listed(place, tmp_path: Path, memory: str):
    base = str(tmp_path) if place == "local" else memory
    uri = storage.join(base, "deep/er", "a [1].wav")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"three")
    assert storage.read_bytes(uri) == b"three"
    assert storage.stat(uri).size == 5
    assert storage.is_dir(storage.join(base, "deep"))
    listed = list(storage.list_files(base))
    assert [(each.path, each.size) for each in listed] == [("deep/er/a [1].wav", 5)]  # no partial file is left
    assert storage.read_bytes(listed[0].uri) == b"three"
    assert storage.stat(listed[0].uri).version == listed[0].version
    with storage.open_binary(uri) as file:
        file.seek(2)
        assert file.read(2) == b"re"
    storage.remove_tree(base)
    assert not storage.exists(uri)


def test_a_version_changes_with_the_file(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    before = storage.stat(str(path)).version
    path.write_bytes(b"two!")
    assert storage.stat(str(path)).version != before


@pytest.mark.parametrize("place", ["local", "memory", "tar"])
def test_a_file_that_is_not_the_one_listed_is_told(place, tmp_path: Path, memory: str):
    def write(name: str, text: bytes) -> storage.FileInfo:
        uri = f"{memory}/{name}" if place == "memory" else f"{tmp_path}/{name}"
        storage.write_bytes(uri, text)
        if place != "tar":
            return storage.stat(uri)
        with tarfile.open(f"{tmp_path}/shard.tar", "w") as tar:
            tar.add(uri, name)
        (member,) = storage.list_members(storage.stat(f"{tmp_path}/shard.tar"), frozenset({".wav"}))
        return member

    before = write("a.wav", b"one")
    for version in (before.version, storage.stat(before.uri).version, ""):
        with storage.open_binary(before.uri, listed=storage.Listed(before.size, version)) as file:
            assert file.read() == b"one"
    write("a.wav", b"three")
    with pytest.raises(StorageError, match="changed since it was listed; scan again") as caught:
        storage.open_binary(before.uri, listed=storage.Listed(before.size, before.version))
    assert caught.value.code == "io_error"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_parquet_goes_through_the_same_names(place, tmp_path: Path, memory: str):
    fs, path = storage.arrow(storage.join(str(tmp_path) if place == "local" else memory, "t.parquet"))
    pq.write_table(pa.table({"a": [1, 2]}), path, filesystem=fs)
    assert pq.read_table(path, filesystem=fs)["a"].to_pylist() == [1, 2]
