"""What others put into a memory: indexes and captions that say more than there is, or unpack to more than fits."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from mats_core.memory.captions import check_captions, read_captions
from mats_core.memory.santa import SantaMemory

ROWS, DIM, CLUSTERS = 180, 32, 4
BEHIND = 98 + 4 * DIM * CLUSTERS  # where the centroids end


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    SantaMemory.build(rows, [f"sound {at}" for at in range(ROWS)], clusters=CLUSTERS).save(str(tmp_path))
    note = json.loads((tmp_path / "memory.json").read_text())
    told = {name: value for name, value in note.items() if "fingerprint" not in name and name != "checksum"}
    (tmp_path / "memory.json").write_text(json.dumps({**told, "encoder_fingerprint": ""}))  # as an attacker writes it
    return tmp_path


def _number(at: int, layout: str, value: int) -> Callable[[Path], None]:
    def run(index: Path) -> None:
        data = bytearray(index.read_bytes())
        struct.pack_into(f"<{layout}", data, at, value)
        index.write_bytes(data)

    return run


INDEXES: dict[str, Callable[[Path], None]] = {
    "more dimensions": _number(4, "i", 1 << 30),
    "more vectors": _number(8, "q", 1 << 40),
    "fewer vectors than none": _number(8, "q", -1),
    "more clusters": _number(37, "Q", 1 << 40),
    "more centroids": _number(61, "q", 1 << 40),
    "more numbers": _number(90, "Q", 1 << 38),
    "another metric": _number(33, "i", 0),
    "another kind": _number(0, "I", int.from_bytes(b"IxPq", "little")),
    "another kind inside": _number(53, "I", int.from_bytes(b"IHNf", "little")),
    "a direct map": _number(BEHIND + 1, "Q", 1 << 38),
    "other lists": _number(BEHIND + 9, "I", int.from_bytes(b"ilod", "little")),
    "more lists": _number(BEHIND + 33, "Q", 1 << 60),
    "lists that wrap around": _number(BEHIND + 41, "Q", (1 << 64) - 8),
    "a row that is not there": lambda index: _number(index.stat().st_size - 8, "q", 1 << 40)(index),
    "cut": lambda index: os.truncate(index, 500),
    "with more behind": lambda index: index.write_bytes(index.read_bytes() + b"x"),
    "empty": lambda index: index.write_bytes(b""),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("mmap", [True, False])
def test_an_index_that_says_what_is_not_there(folder: Path, name: str, mmap: bool) -> None:
    SantaMemory.load(str(folder), mmap)
    INDEXES[name](folder / "index.faiss")
    with pytest.raises(SettingsError, match=r"^memory: "):
        SantaMemory.load(str(folder), mmap)


def _write(folder: Path, **columns: Any) -> Path:
    options = {name: columns.pop(name) for name in ("use_dictionary", "dictionary_pagesize_limit") if name in columns}
    pq.write_table(pa.table(columns), folder / "captions.parquet", compression="zstd", **options)
    return folder / "captions.parquet"


def test_captions_that_unpack_to_far_more(folder: Path) -> None:
    file = _write(folder, caption=["a" * 400_000] * ROWS, source=[""] * ROWS, use_dictionary=False)
    assert file.stat().st_size < 1 << 20
    for read in (lambda: check_captions(file, ROWS), lambda: SantaMemory.load(str(folder))):
        with pytest.raises(SettingsError, match=r"memory: .* unpacks to .* MiB, too much for 180 captions"):
            read()


def test_captions_that_repeat_one_text_are_held_once(folder: Path) -> None:
    text = "a" * 400_000
    _write(folder, caption=[text] * ROWS, source=[""] * ROWS, dictionary_pagesize_limit=1 << 30)
    before = pa.total_allocated_bytes()
    memory = SantaMemory.load(str(folder))
    _, near = memory.transfer(np.ones((1, DIM), np.float32), neighbors=2, explain=True)
    assert [each["caption"] for each in near[0]] == [text] * 2
    assert pa.total_allocated_bytes() - before < 10e6  # of 72 MB


def test_captions_that_are_no_text_or_not_as_many(folder: Path) -> None:
    for columns, says in (
        ({"caption": list(range(ROWS)), "source": [""] * ROWS}, "the column caption of .* is of int64, not of text"),
        ({"caption": [["a"]] * ROWS, "source": [""] * ROWS}, "the column caption of .* is of list"),
        ({"caption": ["a"] * ROWS}, "180 rows of .*, and should have 180 of caption and source"),
        ({"caption": ["a"], "source": [""]}, "1 rows of .*, and should have 180"),
    ):
        _write(folder, **columns)
        with pytest.raises(SettingsError, match=f"memory: .*{says}"):
            SantaMemory.load(str(folder))
    (folder / "captions.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(SettingsError, match="no whole Parquet file"):
        SantaMemory.load(str(folder))


def test_captions_of_any_text_are_read(folder: Path) -> None:
    texts = [None if at == 3 else f"sound {at % 7}" for at in range(ROWS)]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(texts, pa.string()).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(texts, kind)
        file = _write(folder, caption=column, source=[""] * ROWS)
        assert read_captions(file, ROWS)["caption"].to_pylist() == texts
