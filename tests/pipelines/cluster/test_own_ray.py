"""A Ray of a run's own: where it lives, what it wants, what its workers import, and two of them one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from mats_core.packages import ROOT
from pipelines.cluster import own_ray
from pipelines.cluster.own_ray import OwnPaths, make_folder
from tests.mats_core.test_packages import traps


def test_the_folder_is_private_and_its_name_short_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "x"))
    monkeypatch.setattr(own_ray, "LONGEST_SOCKET", 500)
    folder = make_folder()
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path / "x", 0o700)
    monkeypatch.setattr(own_ray, "LONGEST_SOCKET", len(str(tmp_path)))
    other = make_folder()
    assert (other.parent, other.stat().st_mode & 0o777) == (Path("/tmp"), 0o700)
    other.rmdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(own_ray, "LONGEST_SOCKET", 500)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"^RAY_TMPDIR: Ray can make no folder in"):
        make_folder()


def test_of_a_drivers_folders_workers_get_only_that_of_this_package() -> None:
    paths = OwnPaths()
    paths.extend(["/somewhere", str(ROOT), "/usr/bin"])
    assert paths == [str(ROOT)]


@pytest.mark.processes
def test_two_after_one_another_with_traps_and_settings_around(tmp_path: Path) -> None:
    """What the environment says of other Rays counts for nothing, and it is as before afterwards."""
    script = tmp_path / "script.py"
    script.write_text("""
import json, os, sys
from pipelines.cluster.session import ray_session

said = []
before = dict(os.environ)
for _ in range(2):
    with ray_session(None, 1):
        import ray

        @ray.remote
        def look():
            import random, typing, jobs.cli, pipelines.cluster.stages
            token = os.environ["RAY_AUTH_TOKEN"]
            return jobs.cli.__file__, random.__file__, pipelines.cluster.stages.__file__, os.getcwd() in sys.path, token

        said.append(ray.get(look.remote()))
    assert os.environ.get("RAY_AUTH_TOKEN") == "theirs" and os.environ["RAY_AUTH_MODE"] == "disabled"
print(json.dumps(said))
""")
    theirs = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "theirs", "RAY_ADDRESS": "192.0.2.1:1"}
    theirs |= {"RAY_REDIS_ADDRESS": "192.0.2.1:2", "http_proxy": "http://192.0.2.1:3", "RAY_GCS_SERVER_PORT": "22"}
    env = {**os.environ, **theirs, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=traps(tmp_path / "x"), env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first[0] == str(ROOT / "jobs" / "cli.py") and first[2].startswith(str(ROOT / "pipelines"))
    assert first[1] == os.path.join(os.path.dirname(os.__file__), "random.py")
    assert first[3] is False
    assert first[4] != second[4] and "theirs" not in (first[4], second[4])
