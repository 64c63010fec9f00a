"""One run writes at a time."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mats_core import storage
from pipelines.data.generations import Generation, generation_uri, newest
from pipelines.output import lease as leases
from pipelines.output.lease import Lease, LeaseHeld, LeaseLost


def test_a_second_run_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    first = Lease(str(tmp_path), "one")
    first.acquire()
    with pytest.raises(LeaseHeld, match=r"process \d+ on .* holds it since 20"):
        Lease(str(tmp_path), "two").acquire()
    first.check()
    first.release()
    second = Lease(str(tmp_path), "two")
    second.acquire()
    with pytest.raises(LeaseLost):
        first.check()
    second.release()
    assert [path.name for path in sorted(tmp_path.rglob("*.json"))] == ["000001.json", "000002.json"]


@pytest.mark.processes
def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pipelines.output.lease import Lease; Lease(sys.argv[1], 'x').acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeld):
        Lease(str(tmp_path), "y").acquire()
    holder.kill()
    holder.wait()
    mine = Lease(str(tmp_path), "y")
    mine.acquire()
    mine.release()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute's patience as half a second."""
    for name, seconds in (("RENEW_S", 0.1), ("EXPIRES_S", 0.5), ("LONG_SILENT_S", 5.0), ("WATCH_S", 0.02)):
        monkeypatch.setattr(leases, name, seconds)


def elsewhere(folder: Path, **changes: object) -> Path:
    """A lease that a process of another machine holds."""
    if not (folder / "_state" / "generations").exists():
        storage.write_bytes(generation_uri(str(folder), 1), Generation(1, "x").to_bytes())
    holder = {"run_id": "x", "host": "elsewhere", "machine": "m", "pid": 1, "since": 0, "renewed": time.time()}
    storage.write_bytes(str(folder / "_state" / "lease-x.json"), json.dumps({**holder, **changes}).encode())
    return folder / "_state" / "lease-x.json"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("clock_off_s", "patience_s"), [(0.0, 0.5), (-3.0, 0.5), (3.0, 0.5), (-1000.0, 0.2)])
def test_a_silent_holder_of_another_machine_loses_it_whatever_its_clock_says(
    tmp_path: Path, clock_off_s: float, patience_s: float
) -> None:
    elsewhere(tmp_path, renewed=time.time() + clock_off_s)
    told: list[str] = []
    mine, began = Lease(str(tmp_path), "y"), time.monotonic()
    mine.acquire(told.append)
    assert time.monotonic() - began >= patience_s
    assert "elsewhere" in told[0]
    mine.check()
    mine.release()


@contextmanager
def renewing(folder: Path, **holder: object) -> Iterator[None]:
    """A lease of another machine that is written anew all the time, as a slow test machine lets it."""
    over = threading.Event()

    def renew() -> None:
        for turn in itertools.count(1):
            elsewhere(folder, **{**holder, "renewed": holder["renewed"] + turn * 1e-3})  # type: ignore[operator]
            if over.wait(0.02):
                return

    elsewhere(folder, **holder)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks often, and gives up late."""
    monkeypatch.setattr(leases, "WATCH_S", 0.02)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("clock_off_s", [0.0, -3.0, -1000.0])
def test_a_holder_who_renews_keeps_it_whatever_its_clock_says(tmp_path: Path, clock_off_s: float) -> None:
    with renewing(tmp_path, renewed=time.time() + clock_off_s), pytest.raises(LeaseHeld, match="elsewhere"):
        Lease(str(tmp_path), "y").acquire()
    assert newest(str(tmp_path)).run_id == "x"  # type: ignore[union-attr]


@pytest.mark.usefixtures("patient")
def test_a_process_id_of_another_container_is_not_looked_up_here(tmp_path: Path) -> None:
    """Same host name, same boot, other process namespace: the id means another process, or none, here."""
    boot, _, space = leases.this_machine().partition(" ")
    machine = {"host": socket.gethostname(), "machine": f"{boot} {int(space or 0) + 1}", "pid": 2**22 - 1}
    with renewing(tmp_path, renewed=time.time(), **machine), pytest.raises(LeaseHeld):
        Lease(str(tmp_path), "y").acquire()


def test_a_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    elsewhere(tmp_path, machine=leases.this_machine(), pid=os.getpid(), process_started="1")
    mine = Lease(str(tmp_path), "y")
    mine.acquire()
    assert newest(str(tmp_path)).run_id == "y"  # type: ignore[union-attr]
    mine.release()


def test_one_of_many_who_start_together_gets_it(tmp_path: Path) -> None:
    def start(number: int) -> bool:
        try:
            Lease(str(tmp_path), str(number)).acquire()
            return True
        except LeaseHeld:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(start, range(8))) == [False] * 7 + [True]


def test_a_lease_that_cannot_be_read_is_nobodys_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lease(str(tmp_path), "one")
    first.acquire()

    def fails(uri: str) -> bytes:
        raise storage.StorageError("io_error", "the store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(storage, "read_bytes", fails)
        first.check()  # renewed a moment ago: nobody may have taken it
        with pytest.raises(storage.StorageError):
            Lease(str(tmp_path), "two").acquire()
        first.renewed -= leases.EXPIRES_S
        with pytest.raises(storage.StorageError):
            first.check()
    first.check()
    first.release()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "text", ["", "{torn", "[1]", '{"run_id": "x", "machine": 3}', '{"pid": "x", "since": [], "renewed": 0}']
)
def test_a_lease_that_says_nothing_is_watched_like_a_silent_holder(tmp_path: Path, text: str) -> None:
    elsewhere(tmp_path).write_text(text)
    mine = Lease(str(tmp_path), "y")
    mine.acquire()
    mine.check()
    assert newest(str(tmp_path)).run_id == "y"  # type: ignore[union-attr]
    mine.release()


def test_the_lease_of_an_older_version_is_respected(tmp_path: Path) -> None:
    """`_state/lease.json`, of this process: it lives. Then of one that has ended."""
    holder = {"run_id": "old", "machine": leases.this_machine(), "pid": os.getpid(), "since": 0, "renewed": 0}
    holder["process_started"] = leases._process_start(os.getpid())
    old = tmp_path / "_state" / "lease.json"
    storage.write_bytes(str(old), json.dumps(holder).encode())
    with pytest.raises(LeaseHeld):
        Lease(str(tmp_path), "y").acquire()
    storage.write_bytes(str(old), json.dumps({**holder, "process_started": "1"}).encode())
    mine = Lease(str(tmp_path), "y")
    mine.acquire()
    assert not old.exists()
    mine.release()


def test_a_number_that_is_free_again_is_no_way_back(tmp_path: Path) -> None:
    """Frozen before it made its generation; four more came and went, and the first of them were removed."""
    late = Lease(str(tmp_path), "late")
    before = late.wait()
    for name in "abcd":
        other = Lease(str(tmp_path), name)
        other.acquire()
        other.release()
    assert not Path(generation_uri(str(tmp_path), 1)).exists()
    with pytest.raises(LeaseHeld):
        late.begin(before, Generation(0, ""))
    assert newest(str(tmp_path)).run_id == "d"  # type: ignore[union-attr]


def test_one_whose_generation_is_overwritten_stops_before_its_next_file(tmp_path: Path) -> None:
    """By one who was frozen while it made the same one, in a store that has claims for it only."""
    first = Lease(str(tmp_path), "one")
    first.acquire()
    storage.write_bytes(generation_uri(str(tmp_path), 1), Generation(1, "two").to_bytes())
    with pytest.raises(LeaseLost):
        first.check()
    first.release()
