"""Model parts by URI: buckets and hub names are copied once, however many processes ask, and only whole."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mats_core.errors import SettingsError
from mats_core.storage import errors, fetch
from mats_core.storage.fetch import local_directory, local_file
from tests.store_servers import KEYS, Faults, FaultyProxy, Habits, MotoStore

NAMES = ("config.json", "model.safetensors")


def _weights() -> bytes:
    """A safetensors file of one tensor of 1 MB."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**18], "data_offsets": [0, 2**20]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(2**20)


PARTS = {"config.json": b'{"model_type": "llama"}', "model.safetensors": _weights()}


def _fetch(uri: str, ready: Any, results: Any) -> None:
    ready.wait(120)
    try:
        results.put(str(local_directory(uri, "llm")))
    except SettingsError as error:
        results.put(f"refused: {error}")


def in_processes(count: int, uri: str) -> list[str]:
    """What so many processes, all at once, get for `uri`: a folder, or "refused: …"."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=_fetch, args=(uri, ready, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join(60)
    return found


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoStore]:
    store = MotoStore()
    client = store.client()
    client.create_bucket(Bucket="parts")
    for name, data in PARTS.items():
        client.put_object(Bucket="parts", Key=f"llm/{name}", Body=data)
    yield store
    store.close()


@pytest.fixture
def bucket(moto: MotoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """s3:// goes through a proxy that counts requests."""
    proxy = FaultyProxy(moto)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MATS_STORAGE", json.dumps({"s3://": {"endpoint": proxy.endpoint}}))
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    yield proxy
    proxy.close()


def downloads(proxy: FaultyProxy) -> int:
    return sum(method == "GET" and path.startswith("/parts/llm/model.safetensors") for method, path in proxy.requests)


def assert_whole(folder: str) -> None:
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == PARTS


@pytest.mark.processes
def test_three_processes_at_once_download_a_directory_once(bucket: FaultyProxy) -> None:
    found = in_processes(3, "s3://parts/llm")
    assert len(set(found)) == 1
    assert_whole(found[0])
    assert downloads(bucket) == 1
    assert [path.name for path in Path(found[0]).parent.iterdir() if path.name.endswith(".part")] == []


def test_a_copy_that_was_cut_short_later_is_fetched_again(bucket: FaultyProxy) -> None:
    folder = local_directory("s3://parts/llm", "llm")
    assert downloads(bucket) == 1
    assert local_directory("s3://parts/llm", "llm") == folder
    assert downloads(bucket) == 1
    (folder / "model.safetensors").write_bytes(PARTS["model.safetensors"][:1000])
    assert_whole(str(local_directory("s3://parts/llm", "llm")))
    assert downloads(bucket) == 2


def test_answers_that_break_off_are_asked_for_again(bucket: FaultyProxy) -> None:
    bucket.faults = Faults(cut=0.4, seed=3)
    assert_whole(str(local_directory("s3://parts/llm", "llm")))
    assert bucket.faults.happened["cut"] > 0


def test_weights_that_are_broken_in_the_store_are_refused(bucket: FaultyProxy, moto: MotoStore, tmp_path: Path) -> None:
    moto.client().put_object(Bucket="parts", Key="broken/model.safetensors", Body=PARTS["model.safetensors"][:5000])
    with pytest.raises(SettingsError, match=r"llm: s3://parts/broken/model\.safetensors is not a whole safetensors"):
        local_directory("s3://parts/broken", "llm")
    assert not any(path.is_dir() for path in (tmp_path / "cache" / "parts").iterdir())  # nothing is kept of it
    with pytest.raises(SettingsError, match=r"clap: s3://parts/nothing-here cannot be read .*does not exist"):
        local_directory("s3://parts/nothing-here", "clap")


def test_one_file_of_a_bucket(bucket: FaultyProxy) -> None:
    assert local_file("s3://parts/llm/config.json", "checkpoint").read_bytes() == PARTS["config.json"]
    with pytest.raises(SettingsError, match="s3://parts/llm is a folder of 2 files"):
        local_file("s3://parts/llm", "checkpoint")


HOSTILE = (
    ("../../outside.txt",), ("a/../../../outside.txt",), ("..\\outside.txt",), ("nul.json",),
    ("é" * 130,), ("config.json", "Config.json"), ("a", "a/b"),
)  # fmt: skip


@pytest.mark.parametrize("names", HOSTILE)
def test_names_that_would_leave_the_cache_are_refused(
    bucket: FaultyProxy, moto: MotoStore, tmp_path: Path, names: tuple[str, ...]
) -> None:
    place = f"hostile-{abs(hash(names))}"
    for name in ("mats.json", *names):
        moto.client().put_object(Bucket="parts", Key=f"{place}/{name}", Body=b"written")
    with pytest.raises(SettingsError, match=r"llm: s3://.* cannot be copied into the cache: the names? "):
        local_directory(f"s3://parts/{place}", "llm")
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"written"]
    assert written == [] and not (tmp_path.parent / "outside.txt").exists()


def test_bytes_that_change_on_the_way_are_fetched_again(bucket: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "FIRST_PAUSE_S", 0.0)
    bucket.habits = Habits(flips=1, of="config.json")
    assert_whole(str(local_directory("s3://parts/llm", "llm")))
    assert bucket.habits.flips == 0
    bucket.habits.flips = 99
    (local_directory("s3://parts/llm", "llm") / "config.json").unlink()
    with pytest.raises(SettingsError, match=r"config\.json arrived more than once with other bytes"):
        local_directory("s3://parts/llm", "llm")


# -- the hub -------------------------------------------------------------------------------------------------------


class Hub:
    """A hub of one repository `owner/llm`. `broken`: how many times its weights are served half."""

    def __init__(self) -> None:
        self.files = dict(PARTS)
        self.broken = 0
        self.served: Counter[str] = Counter()
        self._lock = threading.Lock()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        commit = hashlib.sha1(b"".join(self.files.values())).hexdigest()
        path = handler.path.partition("?")[0]
        headers = {"Content-Type": "application/json"}
        status, body = 404, b"{}"
        if path.startswith("/api/models/owner/llm/tree/"):  # what newer clients list by
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            body, status = json.dumps(files).encode(), 200
        elif path.startswith("/api/models/owner/llm"):
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": "owner/llm", "sha": commit, "siblings": siblings}).encode()
            status = 200
        elif path.startswith("/owner/llm/resolve/") and (name := path.rpartition("/")[2]) in self.files:
            body, status = self.files[name], 200
            headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": commit}
            with self._lock:
                if handler.command == "GET":
                    self.served[name] += 1
                if name.endswith(".safetensors") and self.broken:
                    self.broken -= handler.command == "GET"
                    body = body[:5000]
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    settings = {"HF_ENDPOINT": found.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)  # read by the processes below when they import the hub's package
    yield found
    found.close()


@pytest.mark.processes
def test_three_processes_at_once_download_from_the_hub_once(hub: Hub) -> None:
    hub.files["pytorch_model.bin"] = b"the same weights, as a pickle"
    found = in_processes(3, "owner/llm")
    assert len(set(found)) == 1
    assert {path.name for path in Path(found[0]).iterdir()} == set(NAMES)  # safetensors first: no pickle is fetched
    assert_whole(found[0])
    assert hub.served == dict.fromkeys(NAMES, 1)


@pytest.mark.processes
def test_a_name_of_the_hub_that_climbs_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["../../../../../outside.json"] = b"{}"
    (found,) = in_processes(1, "owner/llm")
    assert found.startswith("refused: llm: ") or set(os.listdir(found)) == set(NAMES)
    assert [path for path in tmp_path.rglob("outside.json") if "snapshots" not in str(path)] == []


@pytest.mark.processes
def test_a_half_download_from_the_hub_is_fetched_again_and_refused_when_it_stays_so(hub: Hub) -> None:
    hub.broken = 1
    (found,) = in_processes(1, "hf:owner/llm")
    assert_whole(found)
    assert hub.served["model.safetensors"] == 2
    hub.files["model.safetensors"] = PARTS["model.safetensors"][:-1]  # so a new commit
    (found,) = in_processes(1, "owner/llm")
    assert found.startswith("refused: llm: owner/llm/model.safetensors is not a whole safetensors file")


@pytest.mark.processes
def test_a_hub_name_that_is_not_there(hub: Hub) -> None:
    (found,) = in_processes(1, "owner/none")
    assert found.startswith('refused: llm: "owner/none" cannot be read from the hub (')
    assert "or give a local directory" in found


def _made(place: Path, frozen_s: float, freeze: bool) -> None:
    """Make a folder of one file in this process, which stops itself in the middle if it is to."""

    def make(draft: Path) -> None:
        (draft / "half").write_text("1")
        if freeze:
            os.kill(os.getpid(), signal.SIGSTOP)
        (draft / "whole").write_text("2")

    fetch.FROZEN_S = frozen_s
    fetch.made_once(place, lambda folder: (folder / "whole").exists(), make)


@pytest.mark.processes
def test_a_process_that_is_frozen_while_it_makes_a_folder_holds_nobody_up(tmp_path: Path) -> None:
    """Another makes it; the first, let go on, finds it there and takes it as it is."""
    place = tmp_path / "folder"
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=_made, args=(place, 60.0, True))
    first.start()
    assert first.pid is not None
    os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
    second = context.Process(target=_made, args=(place, 0.5, False))
    second.start()
    second.join(60)
    assert second.exitcode == 0 and (place / "whole").read_text() == "2"
    made = (place / "whole").stat().st_ino
    os.kill(first.pid, signal.SIGCONT)
    first.join(60)
    assert first.exitcode == 0 and (place / "whole").stat().st_ino == made
    assert {path.name for path in tmp_path.iterdir()} <= {"folder", "folder.lock"}


def test_a_folder_that_became_whole_while_it_was_to_be_replaced_stays(tmp_path: Path) -> None:
    """As for a process that was stopped right before it removed what was damaged."""
    place = tmp_path / "folder"
    place.mkdir()
    looked = itertools.count(1)

    def is_whole(folder: Path) -> bool:
        before = (folder / "whole").exists()
        if next(looked) == 3:  # the last look before it is replaced
            (folder / "whole").write_text("another's")
        return before

    fetch.made_once(place, is_whole, lambda draft: (draft / "whole").write_text("mine"))
    assert (place / "whole").read_text() == "another's"
    assert {path.name for path in tmp_path.iterdir()} <= {"folder", "folder.lock"}
