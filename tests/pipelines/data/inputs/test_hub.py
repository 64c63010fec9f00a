"""hf://datasets/…: data sets that `datasets` wrote, through `huggingface_hub`'s own file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.inputs import open_input
from tests.hub_server import hub
from tests.pipelines.data.inputs.made import sound

RECORDS = [{"audio": {"bytes": sound(0.3, 300 + 10 * n), "path": f"{n}.wav"}, "label": n} for n in range(12)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Hub with one data set, a folder of two Parquet files and a card."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "hub" / "lab" / "birds"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# Birds")
    made = datasets.Dataset(pa.Table.from_pylist(RECORDS)).cast_column("audio", datasets.Audio())
    for at in (0, 1):
        part = made.select(range(6 * at, 6 * at + 6))
        part.to_parquet(str(folder / "data" / f"train-{at:05}-of-00002.parquet"), batch_size=4)
    return tmp_path / "hub"


@pytest.fixture
def asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What was asked of the Hub that this process now knows."""
    from huggingface_hub import constants, file_download

    with hub(root) as (url, asked):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        _forget()
        yield asked
        _forget()


def _forget() -> None:
    from huggingface_hub.hf_file_system import HfFileSystem
    from huggingface_hub.utils._http import reset_sessions

    HfFileSystem.clear_instance_cache()
    reset_sessions()


@pytest.mark.parametrize("where", ["", "/data", "/data/train-*.parquet", "@main/data"])
def test_a_data_set_of_the_hub_is_read_where_it_lies(asked: list[Any], where: str) -> None:
    source = open_input(f"hf://datasets/lab/birds{where}")
    found = list(source.entries)
    assert [entry.own for entry in found] == [{"label": n} for n in range(12)]
    assert all(entry.error is None and entry.version for entry in found)
    assert [storage.read_bytes(entry.uri) for entry in found] == [each["audio"]["bytes"] for each in RECORDS]
    assert any(each.startswith("bytes=") for _, each in asked)  # ranges, and no file as a whole
    assert all(each for path, each in asked if "/resolve/" in path)


def test_one_file_of_the_hub_and_what_is_not_there(asked: list[Any], root: Path) -> None:
    shutil.copytree(root / "lab" / "birds", root / "lab" / "gated")
    source = open_input("hf://datasets/lab/birds/data/train-00001-of-00002.parquet")
    assert [entry.own["label"] for entry in source.entries] == list(range(6, 12))
    for name, words in (
        ("lab/birds/data/none.parquet", "there is no list hf://datasets/lab/birds/data/none.parquet"),
        ("lab/none", "the Hub shows no hf://datasets/lab/none"),
        ("lab/gated/data/train-00001-of-00002.parquet", "is gated: ask for access"),
    ):
        with pytest.raises(SettingsError, match=words):
            list(open_input(f"hf://datasets/{name}").entries)


def test_another_version_of_a_file_is_another_entry(asked: list[Any], root: Path) -> None:
    uri = "hf://datasets/lab/birds/data/train-00000-of-00002.parquet"
    before = [entry.version for entry in open_input(uri).entries]
    path = root / "lab" / "birds" / "data" / "train-00000-of-00002.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    _forget()
    after = [entry.version for entry in open_input(uri).entries]
    assert len(after) == 5 and not set(before) & set(after)


@pytest.mark.processes
def test_mats_scan_reads_the_hub(root: Path, tmp_path: Path) -> None:
    with hub(root) as (url, _):
        command = [sys.executable, "-m", "jobs", "scan", "hf://datasets/lab/birds", str(tmp_path / "manifest")]
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "manifest" / "manifest").to_pylist()
    assert [row["duration_s"] for row in rows] == [0.3] * 12
    assert [row["size_bytes"] for row in rows] == [len(each["audio"]["bytes"]) for each in RECORDS]
    assert rows[0]["uri"].startswith("parquet+hf://datasets/lab/birds/data/train-00000-of-00002.parquet!0+audio/")
    assert [row["label"] for row in rows] == list(range(12))
