"""A store that is not S3, under the scheme of Google's: what its client is asked for, and that all of it works."""

from __future__ import annotations

import io
import json
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem

from mats_core import storage
from mats_core.audio.decode import decode, probe
from mats_core.storage import Listed, StorageError
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.data.inputs import open_input
from pipelines.settings.archive import LimitSettings
from tests.recordings import encode, melody


class Bucket(AbstractFileSystem):
    """Objects by their whole name, "bucket/key", as gcsfs has them: folders are what names have in common."""

    protocol = ("gs", "gcs")
    cachable = False
    objects: dict[str, bytes]
    asked: list[tuple[str, Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked.append(("options", {name: value for name, value in options.items() if name != "use_listings_cache"}))

    def _entry(self, name: str) -> dict[str, Any]:
        data = self.objects[name]
        return {"name": name, "size": len(data), "type": "file", "etag": f"{hash(data):x}"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """One folder."""
        self.asked.append(("ls", path))
        inside = path.rstrip("/") + "/"
        names = {inside + name[len(inside) :].split("/")[0] for name in self.objects if name.startswith(inside)}
        if not names:
            raise FileNotFoundError(path)
        folders = [{"name": name, "size": 0, "type": "directory"} for name in names - set(self.objects)]
        return folders + [self._entry(name) for name in names & set(self.objects)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Of an object, or of a folder with objects in it."""
        if path in self.objects:
            return self._entry(path)
        if any(name.startswith(path.rstrip("/") + "/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return io.BytesIO(self.objects[path])
        file = io.BytesIO()
        keep = file.close
        file.close = lambda: (self.objects.update({path: file.getvalue()}), keep())[1]  # type: ignore[method-assign]
        return file

    def rm_file(self, path: str) -> None:
        """Remove one."""
        del self.objects[path]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> type[Bucket]:
    Bucket.objects, Bucket.asked = {}, []
    known = fsspec.get_filesystem_class
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda kind: Bucket if kind == "gs" else known(kind))
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"gs://open/": {"anonymous": True}}))
    return Bucket


def test_what_is_written_is_read_listed_folder_by_folder_and_removed(bucket: type[Bucket]) -> None:
    for name in ("b/2.wav", "b/1.wav", "a.wav", "c/[x]*.wav", "c/notes.txt"):
        storage.write_bytes(f"gs://box/sounds/{name}", name.encode())
    bucket.asked.clear()
    listed = list(storage.list_files("gs://box/sounds", {".wav"}))
    assert [each.path for each in listed] == ["a.wav", "b/1.wav", "b/2.wav", "c/[x]*.wav"]
    assert [what for kind, what in bucket.asked if kind == "ls"] == ["box/sounds", "box/sounds/b", "box/sounds/c"]
    for each in listed:
        assert storage.read_bytes(each.uri) == each.path.encode()
        there = storage.stat(each.uri)
        assert (there.size, there.version) == (each.size, each.version)
    assert [each.path for each in storage.list_files("gs://box/**/1.wav")] == ["sounds/b/1.wav"]
    assert storage.exists("gs://box/sounds/a.wav") and storage.is_dir("gs://box/sounds/b")
    assert not storage.exists("gs://box/none")
    fs, path = storage.arrow("gs://box/table.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), path, filesystem=fs)
    assert pq.read_table(storage.open_binary("gs://box/table.parquet"))["a"].to_pylist() == [1, 2]
    storage.write_from("gs://box/copy", io.BytesIO(b"x" * 1000))
    assert bucket.objects["box/copy"] == b"x" * 1000
    storage.remove_tree("gs://box/sounds")
    assert sorted(bucket.objects) == ["box/copy", "box/table.parquet"]
    for uri in ("gs://box/none.wav", "gs://nowhere"):
        with pytest.raises(StorageError, match="does not exist"):
            list(storage.list_files(uri))


def test_a_prefix_that_is_open_is_asked_without_credentials(bucket: type[Bucket]) -> None:
    bucket.objects |= {"open/a.wav": b"x", "box/a.wav": b"x"}
    for name in ("open", "box"):
        assert storage.read_bytes(f"gs://{name}/a.wav") == b"x"
    assert [what for kind, what in bucket.asked if kind == "options"] == [{"token": "anon"}, {}]


def test_an_archive_there_becomes_a_work_list_there(bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        storage.write_bytes(f"gs://box/in/{number}.wav", encode(melody(8000, 1.0 + number), 8000, "wav"))

    def here(self: Scanner, uris: list[str]) -> list[Any]:
        """Headers read in this process: the children of a decoder do not know the store of this test."""
        found = []
        for uri in uris:
            with storage.open_binary(uri) as file:
                found.append(probe(file))
        return found

    monkeypatch.setattr(Scanner, "read_headers", here)
    for known in (0, 3):
        work = WorkList("gs://box/out/work")
        with Scanner(60.0, LimitSettings()) as scanner:
            assert work.extend(open_input("gs://box/in"), scanner, {})[1] == known
    rows = WorkList("gs://box/out/work").read(0, 3).to_pylist()
    assert [(row["uri"], row["duration_s"]) for row in rows] == [(f"gs://box/in/{n}.wav", 1.0 + n) for n in range(3)]
    listed = Listed(rows[1]["size_bytes"], rows[1]["version"])
    with storage.open_binary(rows[1]["uri"], listed=listed) as file:
        assert decode(file, sample_rate=8000).decoded_s == 2.0
    storage.write_bytes(rows[1]["uri"], b"another")
    with pytest.raises(StorageError, match="changed since it was listed"):
        storage.open_binary(rows[1]["uri"], listed=listed)
