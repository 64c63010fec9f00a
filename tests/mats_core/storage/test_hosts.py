"""Hosts that no file and no redirect may lead to."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mats_core import storage
from mats_core.storage import hosts

NEAR = (
    "localhost LocalHost. a.localhost 127.0.0.1 127.1 127.255.1.2 2130706433 0x7f000001 0x7f.1 0177.0.0.1 0.0.0.0 0 "
    "169.254.169.254 169.254.0.9 2852039166 100.100.100.200 ::1 [::1] :: ::ffff:127.0.0.1 ::ffff:169.254.169.254 "
    "::127.0.0.1 fe80::1 fe80::1%eth0 fd00:ec2::254 64:ff9b::7f00:1 2002:7f00:1::"
)
FAR = "example.org 8.8.8.8 10.0.0.7 192.168.1.2 2001:db8::1 localhost.example.org 1270.0.0.1 169.example.org 127"


def test_addresses_in_any_notation() -> None:
    assert [host for host in NEAR.split() if not hosts.is_near(host)] == []
    assert [host for host in FAR.split() if hosts.is_near(host) and host != "127"] == []


def test_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"inside.example": "127.0.0.1", "cloud.example": "fd00:ec2::254", "far.example": "93.184.216.34"}

    def look_up(host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(f"no {host}")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert hosts.resolves_near("inside.example") and hosts.resolves_near("cloud.example")
    assert not hosts.resolves_near("far.example") and not hosts.resolves_near("nowhere.example")


@pytest.fixture
def server() -> Iterator[Any]:
    """Two names of one server: what is asked under `/to/HOST` is sent on to that host; `asked` are its paths."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", f"http://{self.path[4:]}:{self.server.server_port}/secret")  # type: ignore[attr-defined]
            else:
                self.send_response(200)
                self.send_header("Content-Length", "6")
            self.end_headers()
            if self.command == "GET" and not self.path.startswith("/to/"):
                self.wfile.write(b"secret")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Quiet."""

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    made.asked = asked  # type: ignore[attr-defined]
    yield made
    made.shutdown()
    made.server_close()


def test_a_server_elsewhere_does_not_send_on_to_this_machine(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    near = hosts.is_near
    monkeypatch.setattr(hosts, "is_near", lambda host: host != "127.0.0.1" and near(host))  # it plays the one elsewhere
    for inner in ("127.0.0.2", "localhost", "2130706434"):
        server.asked.clear()
        with pytest.raises(storage.StorageError, match=f"refused: 127.0.0.1 sends on to {inner}|127.0.0.2"):
            storage.read_bytes(f"http://127.0.0.1:{server.server_port}/to/{inner}")
        assert set(server.asked) == {f"/to/{inner}"}
    monkeypatch.undo()  # whoever names this machine may be sent on by it
    assert storage.read_bytes(f"http://127.0.0.1:{server.server_port}/to/127.0.0.1") == b"secret"
