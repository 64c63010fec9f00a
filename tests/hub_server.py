"""A stand-in for the Hub: data sets out of a folder, for `huggingface_hub`'s own file system (HF_ENDPOINT)."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """/api/datasets/… tells of a data set, /datasets/…/resolve/… gives its files."""

    root: Path
    asked: list[tuple[str, str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def answer(self) -> None:
        steps = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = steps[0] == "api"
        steps = steps[1:] if api else steps
        self.asked.append(("/".join(steps), self.headers.get("Range") or ""))
        name, rest = "/".join(steps[1:3]), steps[3:]
        folder = self.root / name
        if not api and name.endswith("/gated"):  # everybody sees what it has, and few may read it
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif steps[0] != "datasets" or not folder.is_dir():
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif api and rest[:1] == ["tree"]:
            self.send_tree(folder, folder / "/".join(rest[2:]))
        elif api and rest[:1] == ["paths-info"]:
            self.send_json([])
        elif api:
            self.send_json({"id": name, "sha": COMMIT, "siblings": [], "private": False})
        else:
            self.send_file(folder / "/".join(rest[2:]))

    def send_tree(self, folder: Path, below: Path) -> None:
        if below.is_dir():
            self.send_json([_told(folder, each) for each in sorted(below.iterdir())])
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def send_file(self, path: Path) -> None:
        if not path.is_file():
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        if asked is None:
            self.send(200, content, {})
            return
        first, last = (int(each) for each in asked.removeprefix("bytes=").split("-"))
        self.send(206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    def send_json(self, told: Any) -> None:
        self.send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for each in {**headers, "Content-Length": str(len(content)), "X-Repo-Commit": COMMIT}.items():
            self.send_header(*each)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _told(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0", "size": 0, "path": name}
    return {
        "type": "file", "oid": hashlib.sha1(path.read_bytes()).hexdigest(), "size": path.stat().st_size, "path": name,
    }  # fmt: skip


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(its URL, what is asked of it: path and range) of a Hub whose data set org/name is the folder root/org/name."""
    asked: list[tuple[str, str]] = []
    handler = type("Hub", (_Hub,), {"root": root, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
