"""Commands from and to OpenStack Swift, a real store that is not Amazon's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mats_core import storage
from tests.e2e.conftest import ENV, write_tones
from tests.swift_server import SwiftStore, missing
from tests.training_world import make_world, values

pytestmark = [pytest.mark.store, pytest.mark.swift]
NAMES = ["a b.wav", "plus+and&.wav", "100%25.wav", "Vögel über Köln.wav", 'it\'s "q".wav', "sub/x?y#z.wav"]


@pytest.fixture(scope="module")
def swift() -> Iterator[SwiftStore]:
    if missing():
        pytest.skip(str(missing()))
    store = SwiftStore()
    for name in ("sounds", "results"):
        store.client().create_bucket(Bucket=name)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**store.keys, "AWS_ENDPOINT_URL": store.endpoint}.items():
            patch.setenv(name, value)
        yield store
    store.close()


def mats(*arguments: str) -> str:
    """Run a command to its end; what it printed."""
    env = {**ENV, **{name: value for name, value in os.environ.items() if name.startswith("AWS_")}}
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def listed(uri: str) -> set[str]:
    return {info.path.partition("/")[0] for info in storage.list_files(uri)}


def test_sounds_are_answered_again_and_anew_and_compacted(
    swift: SwiftStore, tmp_path: Path, tiny_model_dir: str
) -> None:
    write_tones(tmp_path / "tones", len(NAMES), 2.0)
    for name, path in zip(NAMES, sorted((tmp_path / "tones").iterdir()), strict=True):
        storage.write_bytes(f"s3://sounds/in/{name}", path.read_bytes())
    caption = ("caption", "s3://sounds/in", "s3://results/out", "--model", tiny_model_dir)
    mats(*caption)
    assert "done already: 6 clips" in mats(*caption)
    mats(*caption, "--overwrite")
    for more in ((), ("--overwrite",)):
        mats("compact", "s3://results/out", "s3://results/large", *more)
    for folder in ("out", "large"):
        (part,) = storage.list_files(f"s3://results/{folder}/answers")
        rows = pq.read_table(storage.open_binary(part.uri)).to_pylist()
        assert {row["uri"] for row in rows} == {f"s3://sounds/in/{name}" for name in NAMES}
        assert all(row["text"] and row["error_code"] is None for row in rows)
        assert json.loads(storage.read_bytes(f"s3://results/{folder}/_run.json"))["status"] == "complete"
    left = [info.path for info in storage.list_files("s3://results/out/_state")]
    assert not [name for name in left if "lease" in name or "trial" in name or "claim" in name]


def test_text_becomes_a_memory_and_a_model(swift: SwiftStore, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    corpora, made, encoder = str(world / "one.jsonl"), "s3://results/text", str(world / "encoder")
    for _ in range(2):
        mats("embed-text", corpora, made, "--encoder", encoder)
        mats("build-memory", made, "s3://results/memory", "--clusters", "4")
    assert {"index.faiss", "captions.parquet", "memory.json"} <= listed("s3://results/memory")
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values(world, "s3://results/train")))
    mats("train", str(config))
    mats("train", str(config), "--overwrite")
    assert "model" in listed("s3://results/train")
    assert storage.exists("s3://results/train/model/mats.json")
