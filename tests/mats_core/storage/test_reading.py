"""Names and files: every name survives as text, nothing is followed that should not be, secrets stay out."""

from __future__ import annotations

import errno
import http.server
import os
import tarfile
import threading
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.storage import StorageError, errors, listing
from mats_core.storage.uris import redacted

ODD_NAMES = [
    b"plain.wav",
    b"two words.wav",
    b'it\'s "quoted".wav',
    "Vögel über Köln.wav".encode(),
    b"line\nbreak.wav",
    b"not utf8 \xff\xe9.wav",
    b"100%25.wav",
    b"[a]*?.wav",
    b"query?x=1#y.wav",
    b"s3:::strange.wav",
]


@pytest.fixture
def memory():
    name = "memory://tests"
    yield name
    storage.remove_tree(name)


def _code(action, *arguments) -> str:
    def act() -> None:
        result = action(*arguments)
        if action is storage.list_files:
            list(result)

    with pytest.raises(StorageError) as caught:
        act()
    return caught.value.code


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_local_name_becomes_text_and_comes_back(tmp_path: Path, name: bytes):
    path = os.fsencode(tmp_path) + b"/" + name
    uri = storage.uri_from_path(path)
    uri.encode("utf-8")  # it can be written down
    assert storage.local_path(uri) == path
    with open(path, "wb") as file:
        file.write(b"sound")
    assert storage.read_bytes(uri) == b"sound"


def test_only_names_that_are_not_utf8_are_encoded():
    assert storage.uri_from_path("/a/b c.wav") == "/a/b c.wav"
    assert storage.uri_from_path(b"/a/\xff%.wav") == "file:///a/%FF%25.wav"
    assert storage.uri_from_path("relative.wav") == f"{os.getcwd()}/relative.wav"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://user:secret@host/a/b.wav?X-Amz-Signature=secret#frag", "https://host/a/b.wav"),
        ("s3://bucket/a?b.wav", "s3://bucket/a?b.wav"),
        ("s3://bucket/a.wav?X-Amz-Credential=secret", "s3://bucket/a.wav"),
        ("s3://key:secret@bucket/a@b.wav", "s3://bucket/a@b.wav"),
        ("az://container/a.wav?sig=secret", "az://container/a.wav"),
        ("/local/a?b#c.wav", "/local/a?b#c.wav"),
        (
            "abfss://container@account.dfs.core.windows.net/a.wav?sig=secret",
            "abfss://container@account.dfs.core.windows.net/a.wav",
        ),
        ("wasbs://user:secret@account/a.wav", "wasbs://account/a.wav"),
        ("ftp://user:secret@host/a.wav", "ftp://host/a.wav"),
        ("s3://key:sec/ret@bucket/a@b.wav", "s3://bucket/a@b.wav"),
        ("sftp://host:22/a@b.wav", "sftp://host:22/a@b.wav"),
        ("http://[bad/a.wav?X-Amz-Signature=secret", "http://[bad/a.wav"),  # no URL, and still no reason to fail
        ("http://user:secret@a\u2100b/a.wav", "http://a\u2100b/a.wav"),
    ],
)
def test_a_public_uri_holds_no_secret(uri, public):
    assert storage.public_uri(uri) == public
    assert "secret" not in redacted(f"cannot open {uri}")


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


def test_joining_stays_below_the_base():
    assert storage.join("s3://bucket/a/", "b", "c d.wav") == "s3://bucket/a/b/c d.wav"
    assert storage.join("/", "a") == "/a"
    assert storage.join("file:///a%FF", "b c") == "file:///a%FF/b%20c"
    for part in ("../x", "a/../../x", "/etc/passwd", "s3://other/x"):
        assert _code(storage.join, "/base", part) == "refused"


# --- reading and writing -------------------------------------------------------------------------------------


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


def test_names_with_magic_characters_are_removed_literally(memory: str):
    for name in ("a*", "ab"):
        storage.write_bytes(f"{memory}/{name}", b"x")
    storage.remove_tree(f"{memory}/a*")
    assert [each.path for each in storage.list_files(memory)] == ["ab"]


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_errors_are_told_apart(tmp_path: Path, memory: str):
    (tmp_path / "file.wav").write_bytes(b"x")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    expected = {
        f"{tmp_path}/none.wav": "not_found",
        f"{tmp_path}/file.wav/x.wav": "not_found",
        f"{tmp_path}/dangling.wav": "not_found",
        f"{tmp_path}/loop.wav": "io_error",
        f"{tmp_path}/pipe.wav": "io_error",
        f"{tmp_path}": "io_error",
        f"{memory}/none.wav": "not_found",
        "nosuchscheme://a/b.wav": "refused",
        "simplecache::s3://a/b.wav": "not_found",  # a name like any other, not a chain of file systems
        "zip://a.wav": "refused",
        "local:///etc/passwd": "refused",
    }
    assert {uri: _code(storage.open_binary, uri) for uri in expected} == expected


def test_a_dangling_link_says_what_it_is(tmp_path: Path):
    (tmp_path / "a.wav").symlink_to("gone")
    with pytest.raises(StorageError, match="link"):
        storage.open_binary(str(tmp_path / "a.wav"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_access_denied(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    path.chmod(0)
    assert _code(storage.open_binary, str(path)) == "access_denied"


def test_permission_denied_by_the_system_is_access_denied(tmp_path: Path, monkeypatch):
    """The same for root, whom file modes do not stop."""

    def deny(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.wav").write_bytes(b"x")
    monkeypatch.setattr(os, "open", deny)
    assert _code(storage.open_binary, str(tmp_path / "a.wav")) == "access_denied"


def test_a_store_that_refuses_is_access_denied_and_its_text_stays_out(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Forbidden for https://user:secret@host/a?X-Amz-Signature=secret")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", refuse)
    with pytest.raises(StorageError) as caught:
        storage.open_binary("memory://a.wav")
    assert caught.value.code == "access_denied"
    assert "secret" not in str(caught.value)


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers /<status>/… with that status, and 200 with a few bytes."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        body = b"sound" if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_web_errors_are_told_apart_and_a_signature_opens_but_is_not_told(web: str, monkeypatch):
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    assert storage.read_bytes(f"{web}/200/a.wav?sig=secret") == b"sound"
    (listed,) = storage.list_files(f"{web}/200/a.wav?sig=secret")
    assert (listed.uri, listed.path) == (f"{web}/200/a.wav?sig=secret", "a.wav")
    closed = "http://127.0.0.1:9/a.wav?sig=secret"
    expected = {"404": "not_found", "403": "access_denied", "401": "access_denied", "500": "io_error"}
    for uri, code in [(closed, "io_error"), *((f"{web}/{s}/a.wav?sig=secret", c) for s, c in expected.items())]:
        with pytest.raises(StorageError) as caught:
            storage.read_bytes(uri)
        assert caught.value.code == code, uri
        assert "secret" not in str(caught.value)


def test_a_root_is_never_removed():
    assert _code(storage.remove_tree, "/") == "refused"
    assert _code(storage.remove_tree, "s3://bucket") == "refused"


# --- listing -------------------------------------------------------------------------------------------------


def _paths(uri: str, **options) -> list[str]:
    return [each.path for each in storage.list_files(uri, **options)]


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


def test_globs_mean_files_and_folders(tmp_path: Path, memory: str):
    for name in ("2023/a.wav", "2024/a.wav", "2024/b.txt", "2024/deep/c.wav"):
        storage.write_bytes(f"{tmp_path}/{name}", b"x")
        storage.write_bytes(f"{memory}/{name}", b"x")
    for base in (str(tmp_path), memory):
        assert _paths(f"{base}/*/a.wav") == ["2023/a.wav", "2024/a.wav"]
        assert _paths(f"{base}/**/*.wav") == ["2023/a.wav", "2024/a.wav", "2024/deep/c.wav"]
        assert _code(storage.list_files, f"{base}/*.mp3") == "not_found"
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


def test_an_input_that_is_not_there_is_not_found(tmp_path: Path, memory: str):
    assert _code(storage.list_files, f"{tmp_path}/none") == "not_found"
    assert _code(storage.list_files, f"{memory}/none") == "not_found"
    assert _paths(str(tmp_path)) == []


def test_whether_a_place_is_another_or_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    here = str(tmp_path / "a")
    assert storage.same_place(here, f"{tmp_path}/link/") and storage.same_place("s3://x/a/", "s3://x/a")
    assert not storage.same_place(here, f"{here}b") and not storage.same_place("s3://x/a", here)
    assert all(storage.lies_in(place, here) for place in (here, f"{tmp_path}/link/b/c.wav", f"{here}/b/../b"))
    assert not any(storage.lies_in(place, here) for place in (f"{here}b", str(tmp_path), f"{here}/../x", "s3://a"))
    assert storage.lies_in("s3://x/a/b", "s3://x/a/") and not storage.lies_in("s3://x/ab", "s3://x/a")
