"""Stores for tests: moto's S3 over HTTP, and before it a small proxy that goes wrong in the ways networks do."""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAMATSTEST", "AWS_SECRET_ACCESS_KEY": "verysecretkey", "AWS_REGION": "us-east-1"}
_VERSION_2 = ("list-type=", "continuation-token=", "start-after=", "fetch-owner=")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class MotoStore:
    """An empty S3 in a thread of this process."""

    keys = KEYS

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.endpoint = f"http://{self.host}:{self.port}"

    def client(self) -> Any:
        """A botocore client of it."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def close(self) -> None:
        """End it."""
        self._server.stop()


@dataclass
class Faults:
    """Shares of requests that go wrong, drawn by a seed: 503 SlowDown, a reset connection, half a body, a stall."""

    slow_down: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    stall: float = 0.0
    stall_s: float = 0.5
    seed: int = 0
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._lock = threading.Lock()

    def next(self) -> str:
        """What the next request meets."""
        with self._lock:
            at = self._draw.random()
            for name in ("slow_down", "reset", "cut", "stall"):
                share = getattr(self, name)
                if at < share:
                    self.happened[name] += 1
                    return name
                at -= share
            self.happened["fine"] += 1
            return "fine"


@dataclass
class Habits:
    """How a store that speaks S3 differs from Amazon's.

    old_checksums: headers and trailers of newer checksums are refused. old_deletes: many deletes in one request want a
    Content-MD5. if_absent: `If-None-Match` is `refused` or `ignored`, as by stores that know no conditional writes.
    list_v2: a listing of version 2 is `refused`, or `ignored`: answered as one of version 1. no_ranges: `Range` is
    ignored. flips: of answers to GET with a text of `of` in their path, so many have one bit changed.
    """

    old_checksums: bool = False
    old_deletes: bool = False
    if_absent: str = ""
    list_v2: str = ""
    no_ranges: bool = False
    flips: int = 0
    of: str = ""


class FaultyProxy:
    """Passes requests on to a store, with faults and habits. Buckets with a telling name answer as S3 does: `denied`,
    `expired`, `stranger` (an unknown access key), `public` (only without credentials), `paying` (only to who agrees to
    pay), `signed` (only with a signature in the URL that is in `signatures`)."""

    def __init__(self, store: Any, faults: Faults | None = None, habits: Habits | None = None) -> None:
        self.faults = faults or Faults()
        self.habits = habits or Habits()
        self.requests: list[tuple[str, str]] = []
        self.signatures: set[str] = set()
        proxy = self

        class Handler(_Handler):
            upstream = (store.host, store.port)
            owner = proxy

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: tuple[str, int]
    owner: FaultyProxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.requests.append((self.command, self.path))
        told = self._told() or self._unlike_amazon()
        if told is not None:
            self._error(*told)
            return
        fault = self.owner.faults.next()
        if fault == "slow_down":
            self._error(503, "SlowDown")
            return
        if fault == "reset":
            # note: with linger 0 the connection ends by RST, as when a load balancer drops it
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault == "stall":
            time.sleep(self.owner.faults.stall_s)
        self._pass_on(body, cut=fault == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _told(self) -> tuple[int, str] | None:
        bucket = urlsplit(self.path).path.split("/")[1].partition("-")[0]
        signature = parse_qs(urlsplit(self.path).query).get("X-Amz-Signature", [""])[0]
        signed = "Authorization" in self.headers or signature
        if bucket == "signed" and signature not in self.owner.signatures:
            return 403, "AccessDenied"
        if bucket == "denied" or (bucket == "public" and signed):
            return 403, "AccessDenied"
        if bucket == "paying" and self.headers.get("x-amz-request-payer") != "requester":
            return 403, "AccessDenied"
        if bucket == "expired":
            return 400, "ExpiredToken"
        return (403, "InvalidAccessKeyId") if bucket == "stranger" else None

    def _unlike_amazon(self) -> tuple[int, str, str] | None:
        """What the store refuses by its habits; what it ignores is taken out of the request."""
        habits, query = self.owner.habits, parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        newer = [name for name in self.headers if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum"))]
        trailed = "x-amz-trailer" in self.headers or "aws-chunked" in self.headers.get("Content-Encoding", "")
        if habits.old_checksums and (newer or trailed):
            return 400, "InvalidArgument", f"Unsupported header: {(newer or ['x-amz-trailer'])[0]}"
        if habits.old_deletes and "delete" in query and "Content-MD5" not in self.headers:
            return 400, "InvalidRequest", "Missing required header for this request: Content-MD5"
        if habits.if_absent and "If-None-Match" in self.headers:
            if habits.if_absent == "refused":
                return 501, "NotImplemented", "A header you provided implies functionality that is not implemented."
            del self.headers["If-None-Match"]
        if habits.list_v2 and "list-type" in query:
            if habits.list_v2 == "refused":
                return 501, "NotImplemented", "ListObjectsV2 is not implemented."
            kept = [each for each in self.path.partition("?")[2].split("&") if not each.startswith(_VERSION_2)]
            self.path = f"{self.path.partition('?')[0]}?{'&'.join(kept)}"
        if habits.no_ranges and self.command == "GET":
            del self.headers["Range"]
        return None

    def _error(self, status: int, code: str, message: str = "") -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message or code}</Message></Error>".encode()
        body = b"" if self.command == "HEAD" else text
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, body: bytes, cut: bool) -> None:
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        habits = self.owner.habits
        if habits.flips and self.command == "GET" and data and answer.status < 300 and habits.of in self.path:
            habits.flips -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        connection.close()
        if cut and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""
