"""Writing and removing: one of several makes a file, and nothing goes that was not named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core import storage
from mats_core.storage import StorageError


@pytest.mark.parametrize("root", ["memory://creating", "local"])
def test_what_is_there_is_not_made_again(root: str, tmp_path: Path) -> None:
    uri = f"{tmp_path if root == 'local' else root}/deep/lease.json"
    assert [storage.create_bytes(uri, text) for text in (b"one", b"two")] == [True, False]
    assert storage.read_bytes(uri) == b"one"
    assert [info.path for info in storage.list_files(uri.rpartition("/")[0])] == ["lease.json"]


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
