"""Buckets over HTTP: names taken literally, causes told apart, faults of the network outlasted."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.audio.file import AudioError
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.storage import StorageError, errors, listing
from tests.recordings import encode, melody
from tests.store_servers import KEYS, Faults, FaultyProxy, MotoStore

ODD_KEYS = [
    "a b.wav",
    'it\'s "odd".wav',
    "Vögel über Köln.wav",
    "100%25.wav",
    "[a]*?.wav",
    "query?x=1#y.wav",
    "a//b.wav",
    "dots/../up.wav",
    "star*.wav",
    "plus+and&.wav",
]


@pytest.fixture(scope="module")
def bucket(store: Any) -> str:
    client = store.client()
    for name in ("sounds", "many"):
        client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key="one.wav", Body=b"sound")
    for key in ODD_KEYS:
        client.put_object(Bucket="sounds", Key=f"odd/{key}", Body=key.encode())
    return "sounds"


def code_and_text(action, *arguments) -> tuple[str, str]:
    with pytest.raises(StorageError) as caught:
        list(action(*arguments) or ())
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_is_taken_literally(s3: FaultyProxy, bucket: str, key: str) -> None:
    uri = f"s3://{bucket}/odd/{key}"
    assert storage.read_bytes(uri) == key.encode()
    assert storage.stat(uri).size == len(key.encode())
    (listed,) = storage.list_files(uri)
    assert listed.uri == uri


def test_a_prefix_is_listed_whole_in_pages_and_its_uris_open(
    s3: FaultyProxy, bucket: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {each.path: each for each in storage.list_files(f"s3://{bucket}/odd")}
    assert set(listed) == set(ODD_KEYS)
    assert all(storage.read_bytes(each.uri) == path.encode() for path, each in listed.items())
    assert listed["a b.wav"].version == storage.stat(f"s3://{bucket}/odd/a b.wav").version
    client = store.client()
    for number in range(11):
        client.put_object(Bucket="many", Key=f"deep/{number % 3}/{number:04d}.wav", Body=b"")
    monkeypatch.setattr(listing, "PAGE", 5)
    before = len(s3.requests)
    paths = [each.path for each in storage.list_files("s3://many/deep", {".wav"})]
    assert len(set(paths)) == len(paths) == 11
    assert paths == sorted(paths)
    assert sum("list-type=2" in path and "continuation" in path for _, path in s3.requests[before:]) == 2


def test_a_glob_over_keys_matches_as_on_a_disk(s3: FaultyProxy, bucket: str) -> None:
    assert [each.path for each in storage.list_files(f"s3://{bucket}/odd/*b.wav")] == ["a b.wav"]
    assert {each.path for each in storage.list_files(f"s3://{bucket}/**/*b.wav")} == {"odd/a b.wav", "odd/a//b.wav"}
    assert code_and_text(storage.list_files, f"s3://{bucket}/*.mp3")[0] == "not_found"


@pytest.mark.parametrize(
    ("uri", "code", "words"),
    [
        ("s3://nowhere/a.wav", "not_found", "bucket s3://nowhere does not exist"),
        ("s3://sounds/none.wav", "not_found", "s3://sounds/none.wav does not exist"),
        ("s3://denied/a.wav", "access_denied", "is denied"),
        ("s3://expired/a.wav", "access_denied", "expired; renew them"),
        ("s3://stranger/a.wav", "access_denied", "does not know this access key"),
    ],
)
@pytest.mark.parametrize("action", [storage.read_bytes, storage.stat, storage.list_files])
def test_causes_are_told_apart(s3: FaultyProxy, bucket: str, uri: str, code: str, words: str, action) -> None:
    found = code_and_text(action, uri)
    assert found[0] == code
    assert words in found[1]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in found[1]


def test_without_credentials_it_says_so(s3: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": s3.endpoint, "region": "us-west-1"}}))
    code, message = code_and_text(storage.stat, "s3://sounds/one.wav")
    assert code == "access_denied"
    assert "no credentials" in message


def test_stores_are_asked_as_their_prefix_says(
    s3: FaultyProxy, bucket: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.client()
    if not isinstance(store, MotoStore):
        pytest.skip("who may read what is told to Swift in its own way")
    for name in ("public-sounds", "paying-sounds"):
        client.create_bucket(Bucket=name, ACL="public-read")
        client.put_object(Bucket=name, Key="one.wav", Body=b"sound", ACL="public-read")
    assert code_and_text(storage.stat, "s3://public-sounds/one.wav")[0] == "access_denied"
    assert code_and_text(storage.stat, "s3://paying-sounds/one.wav")[0] == "access_denied"
    rules = {
        "s3://": {"endpoint": store.endpoint},
        "s3://public-": {"endpoint": s3.endpoint, "anonymous": True},
        "s3://paying-": {"endpoint": s3.endpoint, "requester_pays": True, "region": "us-east-1"},
    }
    monkeypatch.setenv("MATS_STORAGE", json.dumps(rules))
    for name in ("sounds", "public-sounds", "paying-sounds"):
        assert storage.read_bytes(f"s3://{name}/one.wav") == b"sound"
        assert "one.wav" in [each.path for each in storage.list_files(f"s3://{name}")]


def test_every_fault_is_outlasted_in_reading_writing_and_listing(
    store: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(slow_down=0.1, reset=0.1, cut=0.1, stall=0.1, stall_s=0.05, seed=9)
    proxy = FaultyProxy(store, faults)
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": proxy.endpoint}}))
    data = bytes(range(256)) * 2000
    for number in range(6):
        uri = f"s3://{bucket}/faulty/{number}.bin"
        storage.write_bytes(uri, data)
        with storage.open_binary(uri) as file:
            file.seek(1000)
            assert file.read(200_000) == data[1000:201_000]
            file.seek(-5, io.SEEK_END)
            assert file.read() == data[-5:]
    assert len(list(storage.list_files(f"s3://{bucket}/faulty"))) == 6
    storage.remove_tree(f"s3://{bucket}/faulty")
    assert not storage.exists(f"s3://{bucket}/faulty")
    asked = {"Bucket": bucket, "Key": "odd/a b.wav"}
    web = store.client().generate_presigned_url("get_object", asked).replace(store.endpoint, proxy.endpoint)
    if isinstance(store, MotoStore):  # Swift takes the name of the host into the signature
        assert [storage.read_bytes(web) for _ in range(10)] == [b"a b.wav"] * 10
    assert all(faults.happened[name] for name in ("slow_down", "reset", "cut", "stall"))
    proxy.close()


@pytest.mark.parametrize("fault", ["slow_down", "reset"])
@pytest.mark.parametrize("action", [storage.read_bytes, storage.list_files, lambda uri: storage.write_bytes(uri, b"x")])
def test_what_stays_broken_is_asked_for_a_fixed_number_of_times(
    s3: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch, fault: str, action
) -> None:
    """The client's own tries do not multiply with ours."""
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(s3, "faults", Faults(**{fault: 1.0}))
    before = len(s3.requests)
    assert code_and_text(action, f"s3://{bucket}/odd/a b.wav")[0] == "io_error"
    # note: where a connection is dropped, aiohttp sends the request once more: it may have been kept alive too long
    assert len(s3.requests) - before == errors.TRIES * (2 if fault == "reset" else 1)


COSTS = {  # seconds, kind → GETs for its header, for all of it, for a second at its middle
    (2, "wav"): (1, 1, 1),
    (2, "flac"): (1, 1, 1),
    (8, "ogg"): (2, 1, 1),
    (8, "mp3"): (2, 1, 1),
    (16, "opus"): (2, 1, 1),
    (24, "flac"): (2, 1, 3),
}


@pytest.mark.processes
def test_a_sound_costs_few_requests(s3: FaultyProxy, bucket: str) -> None:
    """What jobs/SCALE.md counts with: no HEAD; a GET for a header, two where the length is told at the end; one for all
    of a file up to 8 MiB."""
    found = {}
    with IsolatedDecoder(1, 16000) as decoder:
        for seconds, kind in COSTS:
            noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000 * seconds).astype(np.float32)
            uri = f"s3://{bucket}/costs/{seconds}.{kind}"
            storage.write_bytes(uri, encode(noise, 48_000, kind))
            (listed,) = storage.list_files(uri)

            def costs(action: Callable[[], list[Any]]) -> int:
                before = len(s3.requests)
                (answer,) = action()
                assert not isinstance(answer, AudioError)
                asked = [method for method, _ in s3.requests[before:]]
                assert set(asked) == {"GET"}
                return len(asked)

            whole = DecodeRequest(uri, size=listed.size, version=listed.version)
            second = replace(whole, start_s=seconds / 2, duration_s=1.0)
            found[seconds, kind] = (
                costs(lambda uri=uri: decoder.probe_many([uri])),
                costs(lambda whole=whole: decoder.decode_many([whole])),
                costs(lambda second=second: decoder.decode_many([second])),
            )
    assert found == COSTS


def test_an_object_that_changes_is_never_read_as_the_one_before(s3: FaultyProxy, bucket: str) -> None:
    uri = f"s3://{bucket}/changing.bin"
    storage.write_bytes(uri, b"a" * 3000)
    (before,) = storage.list_files(uri)
    with storage.open_binary(uri, read_ahead=1000, listed=storage.Listed(0, before.version)) as file:
        assert file.read(1000) == b"a" * 1000
        storage.write_bytes(uri, b"b" * 3000)
        with pytest.raises(StorageError, match="changed while it was read"):
            file.read(1000)
    with pytest.raises(StorageError, match="changed since it was listed; scan again"):
        storage.open_binary(uri, listed=storage.Listed(3000, before.version))
    with storage.open_binary(uri, read_ahead=1000) as file:
        file.seek(-1500, io.SEEK_END)
        assert file.read() == b"b" * 1500
        assert file.read() == b""
    storage.write_bytes(uri, b"")
    assert storage.read_bytes(uri) == b""
    assert code_and_text(storage.open_binary, f"s3://{bucket}") == ("io_error", "is a bucket, not a file")


def test_an_upload_that_breaks_off_leaves_nothing(
    s3: FaultyProxy, bucket: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() > 8 << 20:
                raise KeyboardInterrupt
            return super().read(count)

    uri = f"s3://{bucket}/large.bin"
    fs, _ = storage.filesystem(uri)
    monkeypatch.setattr(fs, "default_block_size", 5 << 20)  # the least that S3 takes as a part
    with pytest.raises(KeyboardInterrupt):
        storage.write_from(uri, Breaking(bytes(20 << 20)))
    assert any("uploadId" in path for _, path in s3.requests)
    assert not storage.exists(uri)
    assert "Uploads" not in store.client().list_multipart_uploads(Bucket=bucket)
    storage.write_from(uri, io.BytesIO(bytes(9 << 20)))
    assert storage.stat(uri).size == 9 << 20


@pytest.mark.processes
def test_parquet_and_decoders_reach_the_same_store(s3: FaultyProxy, bucket: str) -> None:
    fs, path = storage.arrow(f"s3://{bucket}/table/t.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), path, filesystem=fs)
    assert pq.read_table(storage.open_binary(f"s3://{bucket}/table/t.parquet"))["a"].to_pylist() == [1, 2]
    sound = encode(melody(16000, 1.0), 16000, "wav")
    storage.write_bytes(f"s3://{bucket}/sound/one.wav", sound)
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        info = tarfile.TarInfo("one.wav")
        info.size = len(sound)
        tar.addfile(info, io.BytesIO(sound))
    storage.write_bytes(f"s3://{bucket}/sound/shard.tar", shard.getvalue())
    (member,) = storage.list_members(storage.stat(f"s3://{bucket}/sound/shard.tar"), frozenset({".wav"}))
    with IsolatedDecoder(1, 16000) as decoder:
        one, same, gone = decoder.decode_many(
            [
                DecodeRequest(f"s3://{bucket}/sound/one.wav"),
                DecodeRequest(member.uri),
                DecodeRequest("s3://denied/a.wav"),
            ]
        )
    assert len(one.samples) == 16000
    assert (one.samples == same.samples).all()
    assert gone.code == "access_denied"


def test_of_many_who_make_one_object_at_once_one_does(s3: FaultyProxy, bucket: str) -> None:
    """Through a network that loses answers: whose second try meets the first one is still told that it was theirs."""
    uri = f"s3://{bucket}/_state/lease.json"
    s3.faults = Faults(reset=0.2, cut=0.2, seed=3)
    try:
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda number: storage.create_bytes(uri, f"run {number}".encode()), range(6)))
    finally:
        s3.faults = Faults()
    assert sum(made) == 1
    assert storage.read_bytes(uri) == f"run {made.index(True)}".encode()
