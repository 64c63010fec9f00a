"""A user who may take too little is told so at once, by the name of the limit; each in a process of its own."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.cluster.limits import check_limits

ROOT = Path(__file__).parents[3]


def limited(limits: str, command: str, folder: Path, **variables: str) -> tuple[int, str, float]:
    """Exit code, what was said on standard error, and seconds, of a shell's command under limits."""
    began = time.monotonic()
    mats = f"exec {sys.executable} -m jobs"
    done = subprocess.run(
        ["bash", "-c", f"{limits}\n{mats} {command}"], capture_output=True, text=True, cwd=folder, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip
    return done.returncode, done.stderr, time.monotonic() - began


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    import numpy as np
    import soundfile

    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "one.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 8000)
    return tmp_path


@pytest.mark.processes
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("ulimit -v 3000000", "mats: ulimit -v: 3000000 is too little for a run (memory that a process may address)"),
        ("ulimit -n 64", "mats: ulimit -n: 64 is too little for a run (files and connections"),
        ("ulimit -f 100000", "mats: ulimit -f: 100000 is too little for a run (largest file)"),
    ],
)
def test_a_run_with_too_little_ends_at_once(sounds: Path, limits: str, said: str) -> None:
    code, told, _ = limited(limits, "caption in out --actors 1", sounds)
    assert (code, told.splitlines()[-1][: len(said)]) == (2, said)


@pytest.mark.processes
def test_what_may_be_raised_is() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))\n"
        "from pipelines.cluster.limits import check_limits; check_limits()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "(4096, 4096)\n"


def test_no_place_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^TMPDIR: .*/file/x takes no temporary files \(Not a directory\); set it"):
        check_limits(temporary=str(tmp_path / "file" / "x"))
    monkeypatch.setattr("pipelines.cluster.limits.LEAST_ROOM", 1 << 62)
    with pytest.raises(SettingsError, match=r"^TMPDIR: .* has room for \d+ MiB of temporary files, and a run needs"):
        check_limits(temporary=str(tmp_path))


def test_many_workers_want_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    free = resource.RLIM_INFINITY
    given = {resource.RLIMIT_NOFILE: (300, 300)}
    monkeypatch.setattr(resource, "getrlimit", lambda each: given.get(each, (free, free)))
    check_limits(50)
    with pytest.raises(SettingsError, match=r"^ulimit -n: 300 is too little for a run .*; allow 464 or more"):
        check_limits(100)


def test_a_machine_without_127_0_0_1_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", none)
    with pytest.raises(SettingsError, match=r"^loopback: nobody is reached at 127\.0\.0\.1.*; ip link set lo up"):
        check_limits(8)
