"""What goes wrong in a store: causes told apart, secrets kept out, and what passes tried again."""

from __future__ import annotations

import errno
import http.server
import os
import threading
from pathlib import Path

import fsspec
import pytest

from mats_core import storage
from mats_core.errors import DiskFull
from mats_core.storage import StorageError, errors


def test_errors_are_told_apart(tmp_path: Path, memory: str, code_of):
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
    assert {uri: code_of(storage.open_binary, uri) for uri in expected} == expected


def test_a_dangling_link_says_what_it_is(tmp_path: Path):
    (tmp_path / "a.wav").symlink_to("gone")
    with pytest.raises(StorageError, match="link"):
        storage.open_binary(str(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    ("number", "full"), [(errno.ENOSPC, "that disk, or your quota"), (errno.EDQUOT, "your quota of")]
)
def test_a_full_disk_says_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, full: str
) -> None:
    def write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", write)
    monkeypatch.setattr(os, "link", write)
    with pytest.raises(DiskFull) as told:
        storage.write_bytes(str(tmp_path / "a.json"), b"x")
    monkeypatch.undo()
    assert told.value.code == "io_error"
    assert f"{tmp_path}/a.json cannot be written: {os.strerror(number)}; {full}" in told.value.message
    assert "is full: make room (df -h and df -i show" in told.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_access_denied(tmp_path: Path, code_of):
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    path.chmod(0)
    assert code_of(storage.open_binary, str(path)) == "access_denied"


def test_permission_denied_by_the_system_is_access_denied(tmp_path: Path, monkeypatch, code_of):
    """The same for root, whom file modes do not stop."""

    def deny(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.wav").write_bytes(b"x")
    monkeypatch.setattr(os, "open", deny)
    assert code_of(storage.open_binary, str(tmp_path / "a.wav")) == "access_denied"


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


def test_what_passes_by_itself_is_tried_again_and_the_last_error_is_raised(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    answers = [ConnectionResetError(), TimeoutError(), "answer"]

    def act():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert errors.with_retries(act) == "answer"
    assert len(waited) == 2
    assert 0.1 <= waited[0] <= 0.2 <= waited[1] <= 0.4
    answers[:] = [ConnectionResetError(str(number)) for number in range(errors.TRIES + 1)]
    with pytest.raises(ConnectionResetError, match=str(errors.TRIES - 1)):
        errors.with_retries(act)
    assert len(answers) == 1
    assert max(waited) <= errors.LONGEST_PAUSE_S
    answers[:] = [FileNotFoundError(), "never reached"]
    with pytest.raises(FileNotFoundError):
        errors.with_retries(act)
