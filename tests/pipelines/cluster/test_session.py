"""A Ray for a run: what is refused before one starts, and what it leaves as it was."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mats_core.errors import SettingsError
from pipelines.cluster import session
from pipelines.cluster.session import check_answers, check_device, object_store_bytes
from pipelines.settings.archive import CaptionSettings
from pipelines.settings.base import build
from pipelines.settings.text import EmbedTextSettings


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_answers(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(
            SettingsError,
            match=rf"^address: no Ray cluster answers at .*{port} \(.+\); give the address of one that runs",
        ):
            check_answers(address)
    check_answers("auto")  # Ray's to find


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no CUDA device"):
        check_device("cuda:0", None)
    check_device("auto", None)
    check_device("cuda", "10.0.0.1:6379")  # the cluster's
    monkeypatch.setenv(session.IN_A_JOB, "{}")
    check_device("cuda", None)


def test_inside_a_ray_job_its_own_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def joined(address: str, **_: object) -> None:
        raise ConnectionError(f"asked for {address}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", joined)
    monkeypatch.setenv(session.IN_A_JOB, "{}")
    with pytest.raises(SettingsError, match="asked for auto"), session.ray_session(None):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": -1}, "batch_size: -1 is too small; give a number greater than 0"),
        ({"max_error_rate": 2}, "max_error_rate: 2 is too large; give a number of at most 1"),
        ({"colour": "red"}, "colour: there is no such setting; choose one of .*task"),
        ({"actors": "many"}, 'actors: "many" is no whole number; give a whole number'),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_given(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build(CaptionSettings, {"input": "a", "output": "b", **given})


def test_relative_paths_are_the_users_not_the_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    joined = build(CaptionSettings, {"input": "in", "output": "out", "model": "mine", "address": "auto"})
    assert (joined.input, joined.output, joined.model) == tuple(str(tmp_path / n) for n in ("in", "out", "mine"))
    kept = {"input": "s3://b/in", "output": "file:///o", "model": "builtin"}
    assert build(CaptionSettings, {**kept, "address": "auto"}).model_dump(include=set(kept)) == kept
    assert build(CaptionSettings, {"input": "in", "output": "out"}).output == "out"  # shown as it was typed
    text = build(EmbedTextSettings, {"corpora": ["a*.csv"], "output": "o", "encoder": "hf:x", "address": "auto"})
    assert (text.corpora, text.encoder) == ([str(tmp_path / "a*.csv")], "hf:x")


@pytest.mark.processes
def test_sigterm_stays_the_commands_own() -> None:
    """A stopped pod keeps what is answered: Ray's handler would end the process with nothing written."""
    script = """
import os, signal
from pipelines.cluster.session import ray_session

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, stop)
try:
    with ray_session(None):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_an_own_rays_object_store_is_sized_by_actors_and_memory() -> None:
    gigabyte = 10**9
    assert object_store_bytes(2, 64 * gigabyte) == 2 * gigabyte
    assert object_store_bytes(8, 64 * gigabyte) == 8 * gigabyte
    assert object_store_bytes(64, 64 * gigabyte) == 12.8 * gigabyte  # a fifth of what is free
    assert object_store_bytes(2, gigabyte // 2) == 256_000_000
