"""One run writes at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import lease as leases
from pipelines.lease import Lease, LeaseHeld, LeaseLost


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
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pipelines.lease import Lease; Lease(sys.argv[1], 'x').acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
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


@pytest.mark.parametrize(("silent_s", "free"), [(leases.EXPIRES_S / 2, False), (leases.EXPIRES_S * 2, True)])
def test_a_lease_of_another_machine_expires(tmp_path: Path, silent_s: float, free: bool) -> None:
    holder = {"run_id": "x", "host": "elsewhere", "pid": 1, "since": 0, "renewed": time.time() - silent_s}
    (tmp_path / "lease.json").write_text(json.dumps(holder))
    mine = Lease(str(tmp_path), "y")
    if free:
        mine.acquire()
        mine.release()
    else:
        with pytest.raises(LeaseHeld, match="elsewhere"):
            mine.acquire()


def test_a_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    first = Lease(str(tmp_path), "one")
    first.acquire()
    first.release()
    holder = {
        "run_id": "x",
        "host": leases.socket.gethostname(),
        "pid": leases.os.getpid(),
        "process_started": "1",
        "since": 0,
        "renewed": time.time(),
    }
    (tmp_path / "lease.json").write_text(json.dumps(holder))
    mine = Lease(str(tmp_path), "y")
    mine.acquire()
    assert json.loads((tmp_path / "lease.json").read_text())["run_id"] == "y"
    mine.release()
