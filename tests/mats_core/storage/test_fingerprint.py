"""Fingerprints: the same for the same contents, wherever they lie; another for whatever can change an answer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from mats_core.storage import fingerprint
from mats_core.storage.fingerprint import cached, combine, fingerprint_directory, fingerprint_file, hash_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "llm"
    (made / "tokenizer").mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"hidden_size": 8, "_name_or_path": "here", "dtype": "float32"}))
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return made


def test_the_same_files_elsewhere_have_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "copied" / "under-another-name"))
    assert fingerprint_directory(again) == fingerprint_directory(folder)
    assert fingerprint_file(again / "model.safetensors") == fingerprint_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"others!"),
        ("tokenizer/vocab.txt", b"b\na\n"),
        ("config.json", b'{"hidden_size": 16}'),
        ("more.bin", b""),
    ],
)
def test_a_changed_or_new_file_changes_it(folder: Path, name: str, content: bytes) -> None:
    before = fingerprint_directory(folder)
    (folder / name).write_bytes(content)
    assert fingerprint_directory(folder) != before


def test_a_renamed_file_changes_it(folder: Path) -> None:
    before = fingerprint_directory(folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert fingerprint_directory(folder) != before


def test_what_says_nothing_about_answers_does_not_count(folder: Path) -> None:
    before = fingerprint_directory(folder)
    (folder / "README.md").write_text("how it was made")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    told = {"transformers_version": "5", "dtype": "bfloat16", "_name_or_path": "there", "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(told, indent=1))
    assert fingerprint_directory(folder) == before


def test_the_order_of_parts_counts_and_that_of_keys_does_not() -> None:
    assert combine([("a", "1"), ("b", "2")]) != combine([("b", "2"), ("a", "1")])
    assert hash_settings({"a": 1, "b": 2}) == hash_settings({"b": 2, "a": 1}) != hash_settings({"a": 2, "b": 1})


def test_the_hash_of_large_files_is_remembered_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "_WORTH_CACHING", 1)
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert cached("file", [file], lambda: "first") == "first"
    assert cached("file", [file], lambda: "second") == "first"
    assert cached("another kind", [file], lambda: "third") == "third"
    file.write_bytes(b"abcd")
    assert cached("file", [file], lambda: "fourth") == "fourth"


def test_a_cache_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "deep" / "cache"
    monkeypatch.setenv("MATS_CACHE", str(root))
    assert fingerprint.cache_folder("parts") == root / "parts"
    assert [path.stat().st_mode & 0o777 for path in (root, root / "parts")] == [0o700, 0o700]
    (root / "parts").chmod(0o755)  # as they were made before
    assert fingerprint.cache_folder("parts").stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    with pytest.raises(SettingsError, match=r"MATS_CACHE: .* any user may write into it; remove it, or set MATS_CACHE"):
        fingerprint.cache_folder("parts")
    root.chmod(0o755)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "link"))  # a link of one's own is one's own
    assert fingerprint.cache_folder("parts") == tmp_path / "link" / "parts"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    fingerprint.cache_folder("parts")
    fingerprint.note("fingerprints", "key", "planted")
    assert fingerprint.noted("fingerprints", "key") == "planted"
    for owned in (tmp_path / "cache", tmp_path / "cache" / "fingerprints"):
        os.chown(owned, 65534, 65534)
        with pytest.raises(SettingsError, match=f"the cache {owned} cannot be believed: user 65534 owns it"):
            fingerprint.noted("fingerprints", "key")
        os.chown(owned, 0, 0)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "link"))
    with pytest.raises(SettingsError, match="user 65534 owns it"):
        fingerprint.cache_folder("parts")


def test_deep_json_is_hashed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert len(fingerprint.hash_file(tmp_path / "deep.json")) == 64
