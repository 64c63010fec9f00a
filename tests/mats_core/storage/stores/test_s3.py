"""Stores that speak S3 and are not Amazon's: what they refuse, ignore or lack is done without."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from mats_core import storage
from mats_core.audio.decode import decode
from mats_core.storage import StorageError, errors, listing
from mats_core.storage.stores.abilities import CREATE, examine_store
from mats_core.storage.writing import refused_condition
from tests.recordings import encode, melody
from tests.store_servers import KEYS, FaultyProxy, Habits, MotoStore

OLD = {
    "checksums": Habits(old_checksums=True, old_deletes=True),
    "condition refused": Habits(if_absent="refused", old_deletes=True),
    "condition ignored": Habits(if_absent="ignored", old_deletes=True),
    "listing refused": Habits(list_v2="refused"),
    "listing ignored": Habits(list_v2="ignored"),
    "ranges ignored": Habits(no_ranges=True),
    "all": Habits(True, True, "ignored", "ignored", True),
}
LARGE = bytes((5 << 20) + 9)  # two parts


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoStore]:
    store = MotoStore()
    store.client().create_bucket(Bucket="results")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield store
    store.close()


@pytest.fixture
def picky(moto: MotoStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Habits], FaultyProxy]]:
    """Every s3:// goes to a store with these habits."""
    proxies = []

    def made(habits: Habits) -> FaultyProxy:
        proxies.append(FaultyProxy(moto, habits=habits))
        monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": proxies[-1].endpoint}}))
        return proxies[-1]

    yield made
    for proxy in proxies:
        proxy.close()


def read_in_blocks(uri: str) -> None:
    with storage.open_binary(uri, read_ahead=1 << 20) as file:
        while file.read(1 << 20):
            pass


@pytest.mark.parametrize("habit", OLD)
def test_all_that_a_run_does_is_done(
    picky: Callable[[Habits], FaultyProxy], monkeypatch: pytest.MonkeyPatch, habit: str
) -> None:
    picky(OLD[habit])
    monkeypatch.setattr(listing, "PAGE", 4)
    folder = f"s3://results/{habit}"
    names = [f"part {number}+%.parquet" for number in range(11)]
    for name in names:
        storage.write_bytes(f"{folder}/deep/{name}", name.encode())
    assert [each.path for each in storage.list_files(folder)] == sorted(f"deep/{name}" for name in names)
    with storage.open_binary(f"{folder}/deep/{names[0]}", read_ahead=3) as file:
        file.seek(5)
        assert file.read(4) == names[0].encode()[5:9]
        file.seek(-4, io.SEEK_END)
        assert file.read() == names[0].encode()[-4:]
    assert [storage.create_bytes(f"{folder}/lease", text) for text in (b"one", b"two")] == [True, False]
    assert storage.read_bytes(f"{folder}/lease") == b"one"
    storage.write_from(f"{folder}/large", io.BytesIO(LARGE), part_bytes=5 << 20)
    assert storage.read_bytes(f"{folder}/large") == LARGE
    fs, path = storage.arrow(folder)
    assert len(fs.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))) == len(names) + 3
    storage.remove_tree(f"{folder}/large")
    fs.delete_dir(f"{path}/deep")  # as Ray does
    assert [each.path for each in storage.list_files(folder)] == ["lease"]
    storage.remove_tree(folder)
    assert not storage.exists(folder)


@pytest.mark.parametrize(
    ("habits", "words"),
    [
        (Habits(), ""),
        (Habits(if_absent="refused"), "A header you provided implies functionality that is not implemented"),
        (Habits(if_absent="ignored"), "it accepts the condition and writes all the same"),
    ],
)
def test_what_a_store_can_is_found_out_once_and_leaves_nothing(
    picky: Callable[[Habits], FaultyProxy], habits: Habits, words: str
) -> None:
    proxy = picky(habits)
    found = dict(examine_store("s3://results/tried"))
    assert list(found) == ["write", "list", "read a range", CREATE, "multipart", "delete"]
    assert words in found.pop(CREATE)
    assert set(found.values()) == {""}
    assert not storage.exists("s3://results/tried")
    before = len(proxy.requests)
    assert storage.creates_if_absent("s3://results/elsewhere/file") == (words == "")
    assert len(proxy.requests) == before


def test_where_nothing_can_be_written_reading_is_tried(picky: Callable[[Habits], FaultyProxy], moto: MotoStore) -> None:
    picky(Habits())
    found = dict(examine_store("s3://denied-sounds/a"))
    assert list(found) == ["write", "list", "read a range"]
    assert all("is denied: AccessDenied" in problem for problem in found.values())
    with pytest.raises(StorageError, match="is denied"):
        refused_condition("s3://denied-sounds/a/b")


def test_the_words_of_a_store_reach_the_user_and_its_secrets_do_not(
    picky: Callable[[Habits], FaultyProxy], moto: MotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = picky(Habits(old_deletes=True))
    fs, _ = storage.filesystem("s3://results/a")
    with pytest.raises(OSError) as caught:
        fs.call_s3("delete_objects", Bucket="results", Delete={"Objects": [{"Key": "a"}]})
    said = storage.error_from(caught.value, "s3://results/a").message
    assert said.endswith(": Missing required header for this request: Content-MD5 (InvalidRequest)")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tokentokentoken")
    words = "no\n\u202e tokentokentoken of https://me:pass@store/a?X-Amz-Signature=abc123, secret=hidden " + "a" * 999
    monkeypatch.setattr(proxy._server.RequestHandlerClass, "_told", lambda _: (400, "Weird", words))
    with pytest.raises(StorageError) as told:
        storage.write_bytes("s3://results/a", b"x")
    assert "cannot be read or written: no" in told.value.message and "(Weird)" in told.value.message
    assert not any(text in told.value.message for text in ("tokentoken", "pass", "abc123", "hidden", "\u202e", "\n"))
    assert len(told.value.message) < 400


def test_bytes_that_change_on_their_way_are_fetched_anew_or_refused(
    picky: Callable[[Habits], FaultyProxy], moto: MotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    small, large = b"state" * 99, bytes(range(256)) * (40 << 10)  # one request, two
    proxy = picky(Habits(of="flipped"))
    for name, data in (("small", small), ("large", large)):
        uri = f"s3://results/flipped/{name}"
        storage.write_bytes(uri, data)
        proxy.habits.flips = 1
        assert storage.read_bytes(uri) == data
        assert proxy.habits.flips == 0
        proxy.habits.flips = 1000
        with pytest.raises(StorageError, match="other bytes than its checksum tells of") as caught:
            storage.read_bytes(uri)
        assert caught.value.code == "io_error"
        with pytest.raises((errors.DamagedAnswer, StorageError)):
            read_in_blocks(uri)
    proxy.habits.flips = 1
    target = io.BytesIO(b"what was there before" * 999999)
    assert storage.copy_into(target, "s3://results/flipped/large") == len(large)
    assert target.getvalue() == large
    proxy.habits.flips = 1000
    rule = {"endpoint": proxy.endpoint, "checksums": False}
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": rule}))
    assert storage.read_bytes("s3://results/flipped/small") != small
    with storage.open_binary("s3://results/flipped/large") as file:
        file.seek(1 << 20)
        assert file.read() != large[1 << 20 :]  # a range: nothing tells that


@pytest.mark.parametrize("kind", ["parts", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_an_etag_that_is_no_md5_is_not_taken_for_one(
    picky: Callable[[Habits], FaultyProxy], moto: MotoStore, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of parts it is the hash of hashes; under a key of the user's, anything. A stored checksum counts there."""
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    proxy, client, data = picky(Habits(of=kind)), moto.client(), LARGE
    uri = f"s3://results/{kind}/object"
    if kind == "parts":
        storage.write_from(uri, io.BytesIO(data), part_bytes=5 << 20)
        assert storage.stat(uri).version.endswith("-2")
    else:
        given = {"ServerSideEncryption": "aws:kms", "ChecksumAlgorithm": kind}
        client.put_object(Bucket="results", Key=f"{kind}/object", Body=data, **given)
    assert storage.read_bytes(uri) == data
    proxy.habits.flips = 1000
    if kind != "parts":
        with pytest.raises(StorageError, match="other bytes"):
            storage.read_bytes(uri)
    else:
        assert hashlib.md5(storage.read_bytes(uri)).digest() != hashlib.md5(data).digest()  # as the docstring says


def test_an_upload_that_changes_on_its_way_is_refused_by_the_store(
    picky: Callable[[Habits], FaultyProxy], moto: MotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto does not look at Content-MD5; that it is sent, and right, is what counts."""
    proxy = picky(Habits())
    sent: dict[str, Any] = {}
    monkeypatch.setattr(
        proxy._server.RequestHandlerClass, "_unlike_amazon", lambda handler: sent.update(dict(handler.headers)) or None
    )
    storage.write_bytes("s3://results/checked", b"bytes")
    digest = hashlib.md5(b"bytes").digest()
    assert sent["Content-MD5"] == base64.b64encode(digest).decode()
    assert not [name for name in sent if "checksum" in name.lower() or "trailer" in name.lower()]


def test_a_sound_that_changes_on_its_way_is_heard_rightly_or_not_at_all(
    picky: Callable[[Habits], FaultyProxy], moto: MotoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the ETag; where there is none, by the checksums in FLAC: what they fit no more is told as lost."""
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    sound = encode(melody(16000, 3.0), 16000, "flac")
    proxy = picky(Habits(of="heard"))
    storage.write_bytes("s3://results/heard/whole.flac", sound)
    with storage.open_binary("s3://results/heard/whole.flac") as file:
        expected = decode(file, sample_rate=16000, name="whole.flac")
    proxy.habits.flips = 1
    with storage.open_binary("s3://results/heard/whole.flac", read_ahead=1 << 20) as file:
        found = decode(file, sample_rate=16000, name="whole.flac")
    assert found.complete and (found.samples == expected.samples).all()
    proxy.habits.flips = 99
    with pytest.raises(StorageError, match="other bytes"):
        storage.open_binary("s3://results/heard/whole.flac", read_ahead=1 << 20)
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": proxy.endpoint, "checksums": False}}))
    with storage.open_binary("s3://results/heard/whole.flac", read_ahead=1 << 20) as file:
        assert not decode(file, sample_rate=16000, name="whole.flac").complete


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_a_store_as_well(form: str, tmp_path: Path) -> None:
    found = dict(examine_store(form.format(tmp_path / "a b")))
    assert set(found.values()) == {""} and {"write", "list", "read a range", CREATE, "delete"} <= set(found)
    assert not any((tmp_path / "a b").iterdir())
