"""JSON and safetensors headers of others, within bounds."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mats_core.errors import SettingsError
from mats_core.storage.descriptions import MOST_DEPTH, read_json, read_object, read_shapes


def _nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"", "is not JSON"),
        (b"1" * 5000, "is not JSON"),  # more digits than Python turns into a number
        (_nested(MOST_DEPTH + 2), "nested more than 64"),
        (_nested(100_000), "nested more than 64"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested more than 64"),
        (b" " * (9 << 20), "more than 8 MiB"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(SettingsError, match=f"llm: the file .*{says}"):
        read_json(tmp_path / "a.json", "llm", "the file")


def test_json_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(_nested(MOST_DEPTH))
    assert json.dumps(read_json(tmp_path / "a.json", "llm")) == _nested(MOST_DEPTH).decode()
    with pytest.raises(SettingsError, match="holds a list, not a JSON object"):
        read_object(tmp_path / "a.json", "llm")
    with pytest.raises(SettingsError, match=r"there is no b\.json"):
        read_json(tmp_path / "b.json", "llm")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(SettingsError, match=r"there is no pipe\.json"):  # and nobody waits for a writer
        read_json(tmp_path / "pipe.json", "llm")


def test_the_shapes_of_weights(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int8)}, tmp_path / "a.safetensors")
    assert read_shapes(tmp_path / "a.safetensors", "llm") == {"a": [2, 3], "b": []}
    whole = (tmp_path / "a.safetensors").read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    for data in (whole[:-1], whole[:7], b"", b"\xff" * 100, struct.pack("<Q", len(header)) + header + bytes(4)):
        (tmp_path / "a.safetensors").write_bytes(data)
        with pytest.raises(SettingsError, match="not a whole safetensors file"):
            read_shapes(tmp_path / "a.safetensors", "llm")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(SettingsError, match="is not a file"):
        read_shapes(tmp_path / "pipe.safetensors", "llm")
