"""Folders, and tars with JSON and texts beside their sounds, written by `webdataset`."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mats_core.errors import SettingsError
from pipelines.data.inputs import open_input
from tests.pipelines.data.inputs.made import sound, write


def _shard(path: Path, samples: list[dict[str, Any]]) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("ending", ["flac", "wav"])  # which come before and after json and txt
def test_json_and_texts_of_a_web_dataset_are_columns_of_their_sounds(tmp_path: Path, ending: str) -> None:
    said = [{"label": f"l{n}", "n": n, "loud": n > 1, "text": "x", "tags": ["a", n]} for n in range(3)]
    samples = [
        {"__key__": f"a/{n:03}", ending: sound(0.1, kind=ending.upper()), "json": said[n], "txt": f"ein Töne {n}"}
        for n in range(3)
    ]
    _shard(tmp_path / "s-000.tar", samples)
    source = open_input(str(tmp_path / "s-000.tar"))
    found = list(source.entries)
    assert dict(zip(source.own_schema.names, source.own_schema.types, strict=True)) == {
        "label": pa.string(), "n": pa.int64(), "loud": pa.bool_(), "own_text": pa.string(), "tags": pa.string(),
        "json": pa.string(), "txt": pa.string(),
    }  # fmt: skip
    assert [entry.path for entry in found] == [f"s-000.tar/a/{n:03}.{ending}" for n in range(3)]
    assert found[2].own == {
        "label": "l2", "n": 2, "loud": True, "own_text": "x", "tags": '["a", 2]', "json": None, "txt": "ein Töne 2",
    }  # fmt: skip
    assert source.skipped == {}
    chosen = open_input(str(tmp_path / "s-000.tar"), columns=["n", "txt"])
    assert [entry.own for entry in chosen.entries] == [{"n": n, "txt": f"ein Töne {n}"} for n in range(3)]
    none = open_input(str(tmp_path / "s-000.tar"), columns=["uri"])
    assert [entry.own for entry in none.entries] == [{}] * 3 and none.own_schema.names == []
    with pytest.raises(SettingsError, match="is called `station`; choose some of label, n"):
        open_input(str(tmp_path / "s-000.tar"), columns=["station"])


def test_values_of_later_samples_that_fit_no_column_are_kept_as_json(tmp_path: Path) -> None:
    first = {"__key__": "000", "wav": sound(0.1), "json": {"n": 1, "x": 1.5, "big": 1}}
    _shard(tmp_path / "a.tar", [first])
    later = [{"n": "many", "x": 2, "new": {"a": 1}, "big": 2**70}, ["no", "object"], {"n": None}]
    _shard(tmp_path / "b.tar", [{"__key__": f"{n}", "wav": sound(0.1), "json": each} for n, each in enumerate(later)])
    (tmp_path / "c.wav").write_bytes(sound(0.1))
    one, other, none, null, plain = open_input(str(tmp_path)).entries
    assert one.own == {"n": 1, "x": 1.5, "big": 1, "json": None}
    assert {**other.own, "json": json.loads(other.own["json"])} == {
        "n": None, "x": 2.0, "big": None, "json": {"n": "many", "new": {"a": 1}, "big": 2**70},
    }  # fmt: skip
    assert none.own == {"n": None, "x": None, "big": None, "json": '["no", "object"]'}
    assert null.own["json"] is None and plain.own == {}


def test_what_stands_alone_is_counted_and_several_sounds_share_what_is_beside_them(tmp_path: Path) -> None:
    members = {"a.json": b"{}", "b.txt": b"both", "b.left.wav": b"x", "b.right.wav": b"y", "c.wav": b"z", "d.txt": b""}
    _tar(tmp_path / "a.tar", members)
    source = open_input(str(tmp_path / "a.tar"))
    assert [(entry.path, entry.own["txt"]) for entry in source.entries] == [
        ("a.tar/b.left.wav", "both"), ("a.tar/b.right.wav", "both"), ("a.tar/c.wav", None),
    ]  # fmt: skip
    assert source.skipped == {".json": 1, ".txt": 1}


def test_text_that_is_no_json_or_no_utf8_or_too_large_breaks_nothing(tmp_path: Path) -> None:
    members = {
        "a.wav": b"x", "a.json": b"{not json", "a.txt": b"\xff\xfe",
        "b.wav": b"x", "b.json": b'{"n": 1}', "b.txt": b"x" * (2 << 20),
    }  # fmt: skip
    _tar(tmp_path / "a.tar", members)
    source = open_input(str(tmp_path / "a.tar"))
    first, second = source.entries
    assert first.own == {"n": None, "json": "{not json", "txt": "\ufffd\ufffd"}
    assert second.own == {"n": 1, "json": None, "txt": None} and source.skipped == {".txt": 1}


def test_a_folder_without_columns_takes_no_names_of_them(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    with pytest.raises(SettingsError, match="is no list, and has no columns"):
        open_input(str(tmp_path), columns=["station"])


def test_the_shards_of_our_own_export_come_back(tmp_path: Path) -> None:
    from pipelines.export.datasets import write_tar

    row = {"row_id": 3, "uri": "/x/a.wav", "start_s": 0.0, "text": "rain", "task": "caption", "label": "dog"}
    with (tmp_path / "a.tar").open("wb") as file:
        write_tar(file, [(row, sound(0.1), "wav")])
    (entry,) = open_input(str(tmp_path / "a.tar")).entries
    assert entry.own["label"] == "dog" and entry.own["own_text"] == "rain" and entry.own["txt"] == "rain"
    assert entry.own["own_row_id"] == 3 and entry.own["own_task"] == "caption" and entry.request == {}
