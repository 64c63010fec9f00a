"""Nobody gets into a run: every socket of every process of `mats caption` and `mats train`, tried by another user."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pipelines.cluster import rendezvous
from tests.e2e.conftest import ENV, ROOT, write_tones
from tests.training_world import make_world, settings

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@dataclass
class Seen:
    """What the processes below one have open: (host, port) that listen, socket files, their ids."""

    ports: set[tuple[str, int]] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    pids: set[int] = field(default_factory=set)
    commands: str = ""
    tokens: set[str] = field(default_factory=set)


def look(pid: int, seen: Seen) -> None:
    """Add what there is just now."""
    with suppress(psutil.Error):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.Error):
                for each in process.net_connections(kind="inet"):
                    if each.status == psutil.CONN_LISTEN:
                        seen.ports.add((each.laddr.ip, each.laddr.port))
                seen.sockets |= {each.laddr for each in process.net_connections(kind="unix") if each.laddr}
                seen.pids.add(process.pid)
                seen.commands += "\0".join(process.cmdline())
                seen.tokens |= {process.environ().get("RAY_AUTH_TOKEN", "")} - {""}


@dataclass
class Run:
    """A run that goes on."""

    process: subprocess.Popen[str]
    seen: Seen
    temporary: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`mats caption` at work on a long list, with a temporary folder that all may write to, as /tmp is."""
    place = tmp_path_factory.mktemp("closed")
    shared = Path("/tmp") / f"mats-shared-{os.getpid()}"
    shared.mkdir(mode=0o1777)
    shared.chmod(0o1777)
    write_tones(place / "in", 3000, 1.0)
    command = [sys.executable, "-m", "jobs", "caption", str(place / "in"), str(place / "out"), "--actors", "1"]
    env = {**ENV, "RAY_TMPDIR": str(shared), "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    process = subprocess.Popen(command, env=env, cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, until = Seen(), time.monotonic() + 150
    while "ray::MapWorker" not in seen.commands:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        look(process.pid, seen)
        time.sleep(0.2)
    for _ in range(15):
        look(process.pid, seen)
        time.sleep(0.2)
    yield Run(process, seen, shared)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    shared.rmdir()  # a run that ended well leaves nothing there


def test_it_listens_on_loopback_alone(run: Run) -> None:
    assert len(run.seen.ports) >= 6
    assert {host for host, _ in run.seen.ports} <= LOOPBACK


def test_its_token_is_its_own_and_on_no_command_line(run: Run) -> None:
    (token,) = run.seen.tokens
    assert len(token) == 64
    assert token not in run.seen.commands
    assert "DashboardHead" not in run.seen.commands and "dashboard/dashboard.py" not in run.seen.commands


def test_its_folders_are_the_users_alone(run: Run) -> None:
    (folder,) = run.temporary.glob("mats-ray-*")
    (session,) = folder.glob("session_2*")
    for path in (folder, session, session / "logs", session / "sockets", session / "runtime_resources"):
        assert path.stat().st_mode & 0o777 == 0o700, path


def test_another_user_gets_in_nowhere(run: Run) -> None:
    (gcs,) = {word.partition("=")[2] for word in run.seen.commands.split("\0") if word.startswith("--gcs-address=")}
    sockets = [each for each in run.seen.sockets if each.startswith(str(run.temporary))]
    assert len(sockets) >= 2
    given = {"ports": sorted(run.seen.ports), "sockets": sockets, "pids": sorted(run.seen.pids), "gcs": gcs}
    command = [sys.executable, "-m", "tests.e2e.intruder", json.dumps(given)]
    done = subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["in"] == []
    assert not found["marked"]
    assert {"InternalKVGcsService/InternalKVKeys", "CoreWorkerService/PushTask"} <= set(found["refused"])
    assert run.process.poll() is None  # and it goes on


@pytest.mark.long
def test_a_second_run_beside_it_is_apart(run: Run, tmp_path: Path) -> None:
    write_tones(tmp_path / "in", 3, 1.0)
    command = [sys.executable, "-m", "jobs", "caption", str(tmp_path / "in"), str(tmp_path / "out")]
    command += ["--actors", "1"]  # else so few files need no Ray
    subprocess.run(command, env=ENV, cwd=tmp_path, check=True, capture_output=True, timeout=240)
    told = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert (told["status"], told["ray"]["nodes"], told["ray"]["own"]) == ("complete", 1, True)
    assert run.process.poll() is None


def train(place: Path) -> None:
    """Two workers, who meet through torch.distributed."""
    from pipelines.train.run import run_train

    result = run_train(settings(make_world(place), place / "out", workers=2, training={"steps": 40}))
    assert (result.status, result.step) == ("complete", 40)


@pytest.mark.long
def test_training_opens_no_port_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: this one may be on a Ray of other tests, which it would train on."""
    assert rendezvous.FileTorchConfig().backend_cls is not None
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    process, seen = multiprocessing.get_context("spawn").Process(target=train, args=(tmp_path,)), Seen()
    process.start()
    assert process.pid is not None
    while process.is_alive():
        look(process.pid, seen)
        process.join(0.1)
    assert process.exitcode == 0
    assert "RayTrainWorker" in seen.commands
    assert {host for host, _ in seen.ports} <= LOOPBACK
