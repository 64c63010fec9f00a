"""Listings: folders, globs and links, each file once, in order and with a URI that opens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mats_core import storage
from mats_core.storage import listing
from tests.mats_core.storage.names import ODD_NAMES


def _paths(uri: str, **options) -> list[str]:
    return [each.path for each in storage.list_files(uri, **options)]


@pytest.mark.parametrize(
    ("uri", "name", "below", "shown"),
    [
        ("s3://bucket/a/", "bucket/a", "bucket/a//b.wav", "s3://bucket/a//b.wav"),
        ("memory://", "", "/a.wav", "memory://a.wav"),
        ("abfss://box@acc.net", "box", "box/a.wav", "abfss://box@acc.net/a.wav"),
        ("abfss://box@acc.net/a", "box/a", "box/a/b.wav", "abfss://box@acc.net/a/b.wav"),
        ("abfss://box@acc.net/**/*.wav", "box/**/*.wav", "box/a/b.wav", "abfss://box@acc.net/a/b.wav"),
        ("sftp://me@host/a", "/a", "/a/b.wav", "sftp://me@host/a/b.wav"),
    ],
)
def test_what_a_client_calls_a_file_becomes_a_uri_that_opens(uri, name, below, shown):
    assert listing.uris_like(uri, name)(below) == shown


def test_a_folder_is_listed_whole_and_in_order(tmp_path: Path):
    for name in ("b/2.wav", "b/1.WAV", "a.flac", "c.txt", "b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d.wav").symlink_to("gone")
    assert _paths(str(tmp_path)) == ["a.flac", "b/1.WAV", "b/2.wav", "b.wav", "c.txt", "d.wav"]
    assert _paths(str(tmp_path), extensions={".wav"}) == ["b/1.WAV", "b/2.wav", "b.wav", "d.wav"]
    assert _paths(str(tmp_path / "c.txt"), extensions={".wav"}) == ["c.txt"]  # named, so meant
    assert [each.version for each in storage.list_files(str(tmp_path / "d.wav"))] == [""]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_is_listed_under_any_name(tmp_path: Path, name: bytes):
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(b"sound")
    (listed,) = storage.list_files(str(tmp_path))
    assert storage.read_bytes(listed.uri) == b"sound"
    listed.path.encode("utf-8")
    (again,) = storage.list_files(listed.uri)
    assert (again.uri, again.path, again.version) == (listed.uri, listed.path, listed.version)


def test_globs_mean_files_and_folders(tmp_path: Path, memory: str, code_of):
    for name in ("2023/a.wav", "2024/a.wav", "2024/b.txt", "2024/deep/c.wav"):
        storage.write_bytes(f"{tmp_path}/{name}", b"x")
        storage.write_bytes(f"{memory}/{name}", b"x")
    for base in (str(tmp_path), memory):
        assert _paths(f"{base}/*/a.wav") == ["2023/a.wav", "2024/a.wav"]
        assert _paths(f"{base}/**/*.wav") == ["2023/a.wav", "2024/a.wav", "2024/deep/c.wav"]
        assert code_of(storage.list_files, f"{base}/*.mp3") == "not_found"
    assert _paths(f"{tmp_path}/*4", extensions={".wav"}) == ["2024/a.wav", "2024/deep/c.wav"]


def test_links_to_folders_end_and_bring_nothing_twice(tmp_path: Path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    for name in (outside / "o.wav", root / "sub" / "s.wav"):
        name.parent.mkdir(parents=True)
        name.write_bytes(b"x")
    (root / "sub" / "up").symlink_to(root)
    (root / "twin").symlink_to(root / "sub")
    (root / "out1").symlink_to(outside)
    (root / "out2").symlink_to(outside)
    (outside / "back").symlink_to(root)
    assert _paths(str(root)) == ["out1/o.wav", "sub/s.wav"]


def test_an_input_that_is_not_there_is_not_found(tmp_path: Path, memory: str, code_of):
    assert code_of(storage.list_files, f"{tmp_path}/none") == "not_found"
    assert code_of(storage.list_files, f"{memory}/none") == "not_found"
    assert _paths(str(tmp_path)) == []
