"""The benchmark's own bucket lists and serves as S3 does."""

from __future__ import annotations

import http.server
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from jobs.benchmarks.scan import PAGE, Bucket, run_benchmark
from mats_core.errors import SettingsError


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Bucket, "sound", bytes(range(100)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return str(answer.read().decode("latin-1"))


def test_a_listing_has_every_key_once_over_its_pages(endpoint: str) -> None:
    keys: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        more = f"&continuation-token={token}" if token else ""
        text = get(f"{endpoint}/bucket-{2 * PAGE + 7}?list-type=2&prefix=clips/{more}")
        keys += re.findall(r"<Key>(.*?)</Key>", text)
        token = "".join(re.findall(r"<NextContinuationToken>(\d+)<", text))
        pages += 1
    assert (pages, len(keys), len(set(keys))) == (3, 2 * PAGE + 7, 2 * PAGE + 7)
    assert "<Key>" not in get(f"{endpoint}/bucket-9?list-type=2&prefix=other/")


def test_a_range_of_a_sound_is_served_and_nothing_else_is_there(endpoint: str) -> None:
    assert get(f"{endpoint}/bucket-9/clips/1.wav", Range="bytes=3-5") == "\x03\x04\x05"
    assert len(get(f"{endpoint}/bucket-9/clips/1.wav")) == 100
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{endpoint}/bucket-9/clips/1.txt")


def test_nothing_to_list_is_refused() -> None:
    with pytest.raises(SettingsError, match="files, headers: one of 0, 5 is not above 0"):
        run_benchmark(0, 5, True)
