"""`mats submit` and `ray job submit` against a real head with dashboard and a second node; audio in a bucket."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.cluster.own_ray import read_authentication
from tests.e2e.conftest import ENV, ROOT, read_answers
from tests.store_servers import KEYS, MotoStore

FILES = 240
BIN = Path(sys.executable).parent
PLAIN = {name: value for name, value in ENV.items() if not name.startswith(("AWS_", "PYTHONPATH"))}
TOKEN = secrets.token_hex(32)
RAY_ENV = {**PLAIN, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
NODE_ENV = {**RAY_ENV, "PATH": f"{BIN}{os.pathsep}{PLAIN['PATH']}"}  # a job's `python` is the one of `ray start`


@dataclass
class Cluster:
    """A dashboard's URL."""

    address: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes started as by hand: `ray start --head`, `ray start --address`. Neither knows any credentials, and both
    want a token."""
    ray, gcs, dashboard = str(BIN / "ray"), free_port(), free_port()
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    state = Path(tempfile.mkdtemp(prefix="mats-cluster-", dir="/tmp"))  # short: sockets have paths of 107 bytes at most
    agents = [f"--dashboard-agent-listen-port={free_port()}" for _ in range(2)]
    common = ["--block", "--num-cpus=4", "--object-store-memory=200000000", "--disable-usage-stats"]
    head = [
        ray,
        "start",
        "--head",
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        f"--temp-dir={state}",
        agents[0],
        *common,
    ]
    log = open(state / "nodes.log", "w")  # noqa: SIM115  # the nodes write on
    nodes = [subprocess.Popen(head, env=NODE_ENV, stdout=log, stderr=log, start_new_session=True)]
    try:
        from ray.job_submission import JobSubmissionClient

        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
        read_authentication()
        deadline = time.monotonic() + 150
        while True:
            try:
                JobSubmissionClient(f"http://127.0.0.1:{dashboard}").list_jobs()
                break
            except Exception:
                assert time.monotonic() < deadline and nodes[0].poll() is None, (state / "nodes.log").read_text()
                time.sleep(1)
        second = [ray, "start", f"--address=127.0.0.1:{gcs}", agents[1], *common]
        nodes.append(subprocess.Popen(second, env=NODE_ENV, stdout=log, stderr=log, start_new_session=True))
        yield Cluster(f"http://127.0.0.1:{dashboard}")
    finally:
        os.environ.update(before)
        for name in {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} - set(before):
            os.environ.pop(name, None)
        read_authentication()
        for node in reversed(nodes):
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                node.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="module")
def store() -> Iterator[MotoStore]:
    """A bucket `sounds` of short tones."""
    found = MotoStore()
    client = found.client()
    client.create_bucket(Bucket="sounds")
    draw = np.random.default_rng(0)
    for index in range(FILES):
        moments = np.arange(int(draw.uniform(0.2, 1.0) * 8000)) / 8000
        body = io.BytesIO()
        soundfile.write(body, 0.3 * np.sin(2 * np.pi * draw.uniform(100, 3000) * moments), 8000, format="WAV")
        client.put_object(Bucket="sounds", Key=f"{index:04d}.wav", Body=body.getvalue())
    yield found
    found.close()


@pytest.mark.long  # starts two nodes and loads a model three times: minutes on two cores
def test_submitted_stopped_and_submitted_again(
    cluster: Cluster, store: MotoStore, tiny_model_dir: str, tmp_path: Path
) -> None:
    """Credentials named with --env reach the driver and the decoders of the workers; nothing else does."""
    out = tmp_path / "out"
    (tmp_path / "token").write_text(TOKEN)
    env = {**ENV, **KEYS, "AWS_ENDPOINT_URL": store.endpoint, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    del env["RAY_AUTH_MODE"]  # mats asks the cluster what it wants
    named = [f"--env={name}" for name in (*KEYS, "AWS_ENDPOINT_URL")]
    caption = ["caption", "s3://sounds/", str(out), "--model", tiny_model_dir, "--commit-rows", "8", "--deterministic"]
    caption += ["--beams", "6", "--actors", "1"]
    submit = [sys.executable, "-m", "jobs", "submit", "--address", cluster.address]

    process = subprocess.Popen(
        [*submit, *named, *caption], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob("answers/*.parquet"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.1)
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(cluster.address)
    job = client.list_jobs()[0].submission_id
    client.stop_job(job)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"ray job stop --address {cluster.address} {job}" in said
    kept = len(read_answers(out))
    assert 0 < kept < FILES

    again = subprocess.run([*submit, *named, *caption], env=env, capture_output=True, text=True, cwd=ROOT, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    rows = read_answers(out)
    assert [row["row_id"] for row in rows] == list(range(FILES))
    assert {row["error_code"] for row in rows} == {None}
    run = json.loads((out / "_run.json").read_text())
    assert (run["status"], run["rows_before"]) == ("complete", kept)
    assert (run["ray"]["own"], run["ray"]["nodes"]) == (False, 2)

    # Ray's own command, without --address of ours: the job joins the cluster it was submitted to
    ray_submit = [str(BIN / "ray"), "job", "submit", "--address", cluster.address, "--working-dir", str(ROOT)]
    variables = {**KEYS, "AWS_ENDPOINT_URL": store.endpoint}
    ray_submit += ["--runtime-env-json", json.dumps({"env_vars": variables, "excludes": [".git", ".venv", "demo"]})]
    command = [*ray_submit, "--", "python", "-m", "jobs", *caption]
    done = subprocess.run(command, env=RAY_ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"done already: {FILES} clips" in done.stdout
    fresh = tmp_path / "fresh"
    command[command.index("s3://sounds/") : command.index(str(out)) + 1] = ["s3://sounds/000*.wav", str(fresh)]
    done = subprocess.run(command, env=RAY_ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["error_code"] for row in read_answers(fresh)} == {None} and len(read_answers(fresh)) == 10
    run = json.loads((fresh / "_run.json").read_text())
    assert (run["ray"]["own"], run["ray"]["nodes"]) == (False, 2)

    # the exit code is the driver's own
    wrong = [*submit, "caption", str(tmp_path / "nowhere"), str(tmp_path / "none"), "--model", tiny_model_dir]
    refused = subprocess.run(wrong, env=env, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    everything = (out / "_run.json").read_text() + said + again.stdout + again.stderr
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in everything and TOKEN not in everything

    # and without the token nothing is sent
    env["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "out" / "_run.json")
    refused = subprocess.run([*submit, *caption], env=env, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "wants another token; set RAY_AUTH_TOKEN_PATH" in refused.stderr
