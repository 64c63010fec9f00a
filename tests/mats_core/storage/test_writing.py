"""Writing and removing: one of several makes a file, and nothing goes that was not named."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mats_core import storage
from mats_core.storage import StorageError, writing
from tests.store_servers import Faults, FaultyProxy, Habits


@pytest.mark.parametrize("root", ["memory://creating", "local"])
def test_what_is_there_is_not_made_again(root: str, tmp_path: Path) -> None:
    uri = f"{tmp_path if root == 'local' else root}/deep/lease.json"
    assert [storage.create_bytes(uri, text) for text in (b"one", b"two")] == [True, False]
    assert storage.read_bytes(uri) == b"one"
    assert [info.path for info in storage.list_files(uri.rpartition("/")[0])] == ["lease.json"]


def test_a_writer_that_is_killed_leaves_nothing_that_a_reader_takes_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pandas reads the folder as it was; of a half-written file it would read rows twice, or none."""
    table = pd.DataFrame({"row": [1, 2]})
    table.to_parquet(tmp_path / "a.parquet")
    left: list[Any] = []

    def killed(draft: bytes, _: bytes) -> None:
        left.append((os.fsdecode(draft), Path(os.fsdecode(draft)).read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(str(tmp_path / "b.parquet"), (tmp_path / "a.parquet").read_bytes())
    ((draft, data),) = left
    assert Path(draft).parent == tmp_path
    Path(draft).write_bytes(data)  # as if nobody had had the time to remove it
    assert pd.read_parquet(tmp_path).equals(table)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"

    def break_off() -> None:
        with storage.whole_file(str(target)) as file:
            file.write(b"half")
            assert all(path.name.startswith(".") for path in target.parent.iterdir())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(target.parent.iterdir()) == []
    with storage.whole_file(str(target)) as file:
        file.write(b"whole")
    assert target.read_bytes() == b"whole" and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("write", [lambda uri: storage.write_bytes(uri, b"x"), storage.make_dirs])
def test_the_web_is_read_only(write) -> None:
    with pytest.raises(StorageError, match="read-only") as caught:
        write("https://127.0.0.1:9/out/a.parquet")
    assert caught.value.code == "refused"


def test_names_with_magic_characters_are_removed_literally(memory: str):
    for name in ("a*", "ab"):
        storage.write_bytes(f"{memory}/{name}", b"x")
    storage.remove_tree(f"{memory}/a*")
    assert [each.path for each in storage.list_files(memory)] == ["ab"]


def test_a_root_is_never_removed(code_of):
    assert code_of(storage.remove_tree, "/") == "refused"
    assert code_of(storage.remove_tree, "s3://bucket") == "refused"


def test_what_another_removes_in_this_moment_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = os.unlink

    def twice(path: Any, **options: Any) -> None:
        remove(path, **options)
        remove(path, **options)

    monkeypatch.setattr(os, "unlink", twice)
    for name in ("lease.json", "answers/a.parquet", "answers/b/c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    storage.remove_tree(tmp_path / "lease.json")
    storage.remove_tree(tmp_path / "answers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("habit", ["refused", "ignored"])
def test_of_many_who_make_one_file_at_once_one_does_on_any_store(
    store: Any, monkeypatch: pytest.MonkeyPatch, habit: str
) -> None:
    """Also where the store knows no conditional writes: with answers that come late, so that all orders occur."""
    faults = Faults(stall=0.3, stall_s=0.04, reset=0.01, seed=5)
    proxy = FaultyProxy(store, faults, Habits(if_absent=habit))
    for name, value in {**store.keys, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": proxy.endpoint}})}.items():
        monkeypatch.setenv(name, value)
    store.client().create_bucket(Bucket=f"racing-{habit}")
    for race in range(6):
        uri = f"s3://racing-{habit}/{race}/_state/1.json"
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(storage.create_bytes, [uri] * 3, (b"0", b"1", b"2")))
        assert sum(made) == 1
        assert storage.read_bytes(uri) == b"%d" % made.index(True)
        assert [info.path for info in storage.list_files(uri.rpartition("/")[0])] == ["1.json"]
    assert not storage.creates_if_absent(uri)
    proxy.close()


def test_a_claim_that_a_killed_process_left_is_waited_for_and_removed(
    monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    monkeypatch.setattr(writing, "_CLAIM_S", 0.3)
    monkeypatch.setattr(writing, "refused_condition", lambda _: "not today")
    storage.write_bytes(f"{memory}/lease.json.claim-of-one-who-died", b"")
    started = time.monotonic()
    assert storage.create_bytes(f"{memory}/lease.json", b"mine")
    assert time.monotonic() - started > 0.3
    assert [info.path for info in storage.list_files(memory)] == ["lease.json"]
    storage.remove_tree(f"{memory}/lease.json")
    monkeypatch.setattr(writing, "_MOST_WAIT_S", 0.5)
    monkeypatch.setattr(writing, "_CLAIM_S", 60.0)
    storage.write_bytes(f"{memory}/lease.json.claim-of-another", b"")
    with pytest.raises(StorageError, match="is too slow to be sure without"):
        storage.create_bytes(f"{memory}/lease.json", b"mine")
