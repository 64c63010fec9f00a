"""`mats caption` from and to buckets: signed URLs, several stores at once, a network that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.archive.caption import run_caption
from pipelines.settings.archive import CaptionSettings
from tests.e2e.conftest import ENV, read_answers, without, write_tones
from tests.store_servers import KEYS, Faults, FaultyProxy, MotoStore

SECRET = "1f00dfeed5ecret"


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoStore]:
    store = MotoStore()
    yield store
    store.close()


def upload(store: MotoStore, bucket: str, folder: Path, acl: str = "private") -> list[str]:
    """Put all files of a folder into a new bucket; their keys."""
    client = store.client()
    client.create_bucket(Bucket=bucket, ACL=acl)
    keys = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=(folder / key).read_bytes(), ACL=acl)
    return keys


def everything_written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below, and what is in the columns of the Parquet files."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                yield path, repr(pq.read_table(path).to_pylist()).encode()


@pytest.mark.long  # a minute
def test_signed_urls_are_read_and_their_secrets_are_nowhere(
    moto: MotoStore, tmp_path: Path, tiny_model_dir: str, shared_ray: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    write_tones(tmp_path / "tones", 3, 1.0)
    keys = upload(moto, "signed-sounds", tmp_path / "tones", "public-read")
    proxy = FaultyProxy(moto)

    def write_list(signature: str) -> None:
        query = f"X-Amz-Credential=AKIA{SECRET}%2F20261123&X-Amz-Date=20261123T000000Z&X-Amz-Expires=600"
        urls = [f"{proxy.endpoint}/signed-sounds/{key}?{query}&X-Amz-Signature=" for key in [*keys, "gone.wav"]]
        rows = [f"{url}{signature},{number}" for number, url in enumerate(urls)]
        rows.append(f"http://user:{SECRET}@127.0.0.1:9/a.wav?token={SECRET},9")  # nobody answers there
        rows.append(f"{urls[0]}{SECRET}wrong,10")
        (tmp_path / "list.csv").write_text("uri,place\n" + "\n".join(rows) + "\n")

    proxy.signatures = {f"{SECRET}1"}
    write_list(f"{SECRET}1")
    out = tmp_path / "out"
    settings = CaptionSettings(input=str(tmp_path / "list.csv"), output=str(out), model=tiny_model_dir)
    result = run_caption(settings)
    rows = read_answers(out)
    codes = [row["error_code"] for row in rows]
    assert codes == [None, None, None, "not_found", "io_error", "access_denied"]
    assert all(row["text"] and row["decoded_s"] > 0 for row in rows[:3])
    assert rows[0]["uri"] == f"{proxy.endpoint}/signed-sounds/{keys[0]}"
    assert "expired at 2026-11-23 00:10:00 UTC" in rows[5]["error_message"]

    local = tmp_path / "local"
    run_caption(CaptionSettings(input=str(tmp_path / "tones"), output=str(local), model=tiny_model_dir))
    assert [row["text"] for row in rows[:3]] == [row["text"] for row in read_answers(local)]

    proxy.signatures = {f"{SECRET}2"}
    write_list(f"{SECRET}2")  # signed anew: the same rows, nothing to do
    assert run_caption(settings).status == "complete_before"
    proxy.close()

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    places = [*everything_written(out), *everything_written(session / "logs")]
    assert len(places) > 10
    assert [str(path) for path, content in places if SECRET.encode() in content] == []
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + repr(result)


def run_command(
    input_: str, output: str, model: str, endpoints: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """`mats caption`, each prefix at its own endpoint."""
    rules = {prefix: {"endpoint": endpoint} for prefix, endpoint in endpoints.items()}
    env = {**ENV, **KEYS, "MATS_STORAGE": json.dumps(rules), "MATS_CACHE": os.environ.get("MATS_CACHE", "")}
    env = {name: value for name, value in env.items() if value}
    command = [sys.executable, "-m", "jobs", "caption", input_, output, "--model", model, *options]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=1500)


def download(store: MotoStore, bucket: str, folder: Path) -> Path:
    """A whole bucket as files."""
    client = store.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", ()):
            path = folder / each["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket=bucket, Key=each["Key"])["Body"].read())
    return folder


def run_through_faults(moto: MotoStore, tmp_path: Path, model: str, files: int, faults: Faults, name: str) -> None:
    """A run whose input, output and model lie on three stores, two of them failing, gives the rows of one on disk."""
    write_tones(tmp_path / "tones", files, 2.0)
    upload(moto, f"{name}-in", tmp_path / "tones")
    upload(moto, f"{name}-model", Path(model))
    moto.client().create_bucket(Bucket=f"{name}-out")
    proxies = [FaultyProxy(moto, faults), FaultyProxy(moto, faults)]
    done = run_command(
        f"s3://{name}-in",
        f"s3://{name}-out/run",
        f"s3://{name}-model",
        {
            f"s3://{name}-in": proxies[0].endpoint,
            f"s3://{name}-out": proxies[1].endpoint,
            f"s3://{name}-model": moto.endpoint,
        },
        "--commit-rows",
        "8",
    )
    for proxy in proxies:
        proxy.close()
    assert done.returncode == 0, done.stderr
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    there = download(moto, f"{name}-out", tmp_path / "there") / "run"
    here = tmp_path / "here"
    run_caption(CaptionSettings(input=str(tmp_path / "tones"), output=str(here), model=model))
    assert json.loads((there / "_run.json").read_text())["status"] == "complete"
    secret = KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    assert not any(secret in content for _, content in everything_written(there))
    columns = ("uri", "run_id", "chunk_id", "version")
    found, expected = read_answers(there), read_answers(here)
    assert [Path(str(row["uri"])).name for row in found] == [Path(str(row["uri"])).name for row in expected]
    found, expected = without(found, *columns), without(expected, *columns)
    assert {name: [row[name] for row in found] for name in found[0]} == {
        name: [row[name] for row in expected] for name in expected[0]
    }


@pytest.mark.usefixtures("shared_ray")
def test_a_bucket_behind_a_failing_network_gives_every_row(
    moto: MotoStore, tmp_path: Path, tiny_model_dir: str
) -> None:
    faults = Faults(slow_down=0.05, reset=0.05, cut=0.05, stall=0.05, stall_s=0.2, seed=7)
    run_through_faults(moto, tmp_path, tiny_model_dir, 16, faults, "small")
    assert all(faults.happened[name] for name in ("slow_down", "reset", "cut", "stall"))


@pytest.mark.long
@pytest.mark.usefixtures("shared_ray")
def test_many_files_with_stalls_of_ten_seconds(moto: MotoStore, tmp_path: Path, tiny_model_dir: str) -> None:
    faults = Faults(slow_down=0.05, reset=0.05, cut=0.05, stall=0.05, stall_s=10, seed=4)
    run_through_faults(moto, tmp_path, tiny_model_dir, 200, faults, "large")
    assert all(faults.happened[name] > 10 for name in ("slow_down", "reset", "cut", "stall"))


@pytest.mark.parametrize(
    ("input_", "output", "word"),
    [
        ("s3://nowhere", "s3://denied/out", "bucket s3://nowhere does not exist"),
        ("s3://expired/a", "s3://denied/out", "have expired"),
        ("s3://plain", "s3://denied/out", "is denied"),
        ("s3://plain", "https://127.0.0.1:9/out", "read-only"),
    ],
)
def test_a_store_that_refuses_is_a_wrong_setting_before_start(
    moto: MotoStore, tiny_model_dir: str, input_: str, output: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mats_core.errors import SettingsError

    proxy = FaultyProxy(moto)
    client = moto.client()
    client.create_bucket(Bucket="plain")
    client.put_object(Bucket="plain", Key="a.wav", Body=b"x")
    for name, value in {**KEYS, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": proxy.endpoint}})}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=word):
        run_caption(CaptionSettings(input=input_, output=output, model=tiny_model_dir))
    proxy.close()
