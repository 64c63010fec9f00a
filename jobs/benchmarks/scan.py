"""`mats benchmark scan`: a bucket of a million sounds becomes a manifest; rate and memory of the driver.

The bucket is a server of our own in another process: it speaks as much S3 as listing and reading need, and every
object is the same two seconds of WAV. Listing, ids, chunks and the manifest's files are what `mats scan` does.
Headers are read for `headers` of the objects, which gives their own rate; in the run over all of them their
answers are a constant, since a million requests would measure the server.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jobs.benchmarks.measuring import print_figures
from mats_core.errors import SettingsError

SIZES = (10_000, 100_000)
PAGE = 1000


def run_benchmark(files: int, headers: int, as_json: bool) -> int:
    """Measure and print; raises SettingsError."""
    if files < 1 or headers < 1:
        raise SettingsError("files, headers", f"one of {files}, {headers} is not above 0", "give numbers above 0")
    print_figures(measure(files, headers), as_json, print_rates)
    return 0


def print_rates(figures: dict[str, Any]) -> None:
    """A line a size of bucket, and one for headers."""
    for row in figures["listed"]:
        rate = f"{row['files'] / row['seconds']:.0f} objects/s"
        print(f"{row['files']} objects: {row['seconds']:.1f} s, {rate}, driver {row['peak_mb']:.0f} MB at most")
    read = figures["headers"]
    print(f"{read['files']} headers over HTTP: {read['seconds']:.1f} s, {read['files'] / read['seconds']:.0f} files/s")


def measure(files: int, headers: int) -> dict[str, Any]:
    """Figures for a tenth and a hundredth of a million, for `files`, and for the headers of some."""
    command = [sys.executable, "-m", "jobs.benchmarks.scan"]
    server = subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        endpoint = server.stdout.readline().strip()
        rules = json.dumps({"s3://": {"endpoint": endpoint, "anonymous": True, "region": "us-east-1"}})
        env = {**os.environ, "MATS_STORAGE": rules, "OMP_NUM_THREADS": "1"}

        def one(count: int, kind: str) -> dict[str, Any]:
            done = subprocess.run([*command, kind, str(count)], env=env, check=True, stdout=subprocess.PIPE, text=True)
            return dict(json.loads(done.stdout))

        sizes = [size for size in SIZES if size < files]
        return {"listed": [one(count, "list") for count in (*sizes, files)], "headers": one(headers, "headers")}
    finally:
        server.kill()
        server.wait()


def _scan(count: int, kind: str) -> None:
    """`run_scan` over a bucket of `count` objects, in a process of its own; figures as JSON on stdout."""
    from mats_core.audio.file import AudioInfo
    from pipelines.archive.headers import Scanner
    from pipelines.archive.scan import run_scan
    from pipelines.cluster.progress import peak_mb
    from pipelines.settings.archive import ScanSettings

    if kind == "list":
        info = AudioInfo("wav", 8000, 1, 2.0, "header")
        Scanner.read_headers = lambda self, uris: [info] * len(uris)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="mats-benchmark-") as folder:
        started = time.monotonic()
        result = run_scan(ScanSettings(input=f"s3://bucket-{count}/clips", output=folder))
        seconds = time.monotonic() - started
        assert result.total_rows == count and not result.added.errors, result
    print(json.dumps({"files": count, "seconds": round(seconds, 2), "peak_mb": peak_mb()}))


class Bucket(http.server.BaseHTTPRequestHandler):
    """GET /bucket-N?list-type=2 lists N keys below clips/; any of them is the same small WAV file."""

    protocol_version = "HTTP/1.1"
    sound = b""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if "list-type" in query:
            self._send(200, self._listing(int(url.path.split("-")[1].split("/")[0]), query))
        elif not url.path.endswith(".wav"):
            self._send(404, b"")
        elif span := self.headers.get("Range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            part = self.sound[int(first) : int(last or len(self.sound)) + 1]
            self._send(206, part, f"bytes {first}-{int(first) + len(part) - 1}/{len(self.sound)}")
        else:
            self._send(200, self.sound)

    do_HEAD = do_GET

    def _listing(self, count: int, query: dict[str, list[str]]) -> bytes:
        if not "clips/".startswith(query.get("prefix", [""])[0]):
            count = 0
        first = int(query.get("continuation-token", ["0"])[0])
        stop = min(count, first + min(PAGE, int(query.get("max-keys", [str(PAGE)])[0])))
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < count else ""
        contents = "".join(
            f"<Contents><Key>clips/{number // 1000:06d}/{number:09d}.wav</Key><Size>{len(self.sound)}</Size>"
            f'<ETag>"{number:032x}"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>'
            for number in range(first, stop)
        )
        truncated = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        return f"<ListBucketResult>{truncated}{more}{contents}</ListBucketResult>".encode()

    def _send(self, status: int, body: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"sound"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _serve() -> None:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000, np.float32), 8000, format="WAV", subtype="PCM_16")
    Bucket.sound = file.getvalue()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        _scan(int(sys.argv[2]), sys.argv[1])
