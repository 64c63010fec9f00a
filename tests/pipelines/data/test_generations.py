"""Which files of an OUTPUT count, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.data.generations import Generation, files, generation_uri, missing, newest, place_of, told


def make(output: Path, generation: Generation) -> Path:
    place = Path(generation_uri(str(output), generation.number))
    storage.write_bytes(str(place), generation.to_bytes())
    return place


def part(output: Path, name: str) -> None:
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"row_id": [1]}), output / name)


def counted(folder: Path) -> list[str]:
    return [info.path for info in files(str(folder))]


def test_what_was_taken_over_and_what_the_newest_run_writes_counts(tmp_path: Path) -> None:
    """Not what an older run puts beside it later, whatever its name."""
    for name in ("answers/part-1-aaa.parquet", "answers/part-2-bbb.parquet", "answers/format=wav/part-3-aaa.parquet"):
        part(tmp_path, name)
    assert len(counted(tmp_path / "answers")) == 3  # of an older version
    make(tmp_path, Generation(8, "aaa"))
    assert counted(tmp_path / "answers") == ["format=wav/part-3-aaa.parquet", "part-1-aaa.parquet"]
    taken = frozenset({"answers/part-1-aaa.parquet", "answers/part-9-zzz.parquet"})
    make(tmp_path, Generation(10, "bbb", files=taken))
    assert counted(tmp_path / "answers") == ["part-1-aaa.parquet", "part-2-bbb.parquet"]
    assert [Path(uri).name for uri in missing(str(tmp_path / "answers"))] == ["part-9-zzz.parquet"]
    part(tmp_path, "predictions/run.parquet")
    assert counted(tmp_path / "predictions") == ["run.parquet"]  # no folder of those that a run takes over
    assert missing(str(tmp_path / "predictions")) == []


def test_a_generation_comes_back_as_it_was_made(tmp_path: Path) -> None:
    made = Generation(3, "r", {"job": "caption", "ü": None}, frozenset({"a/b"}), {"_run.json": {"rows": 1.5}})
    make(tmp_path, made)
    assert newest(str(tmp_path)) == made
    assert told(str(tmp_path), "_run.json") == {"rows": 1.5}
    assert told(str(tmp_path), "_embeddings.json") is None
    assert newest(str(tmp_path / "elsewhere")) is None


def test_the_file_itself_is_believed_only_where_there_is_no_generation(tmp_path: Path) -> None:
    (tmp_path / "_run.json").write_text('{"status": "complete"}')
    assert told(str(tmp_path), "_run.json") == {"status": "complete"}
    (tmp_path / "_run.json").write_text("[1]")
    with pytest.raises(ValueError, match="no JSON object"):
        told(str(tmp_path), "_run.json")
    make(tmp_path, Generation(1, "r"))
    assert told(str(tmp_path), "_run.json") is None


@pytest.mark.parametrize("place", [0, 30, -60, -3])
def test_a_flipped_bit_is_found_and_named_with_what_to_do(tmp_path: Path, place: int) -> None:
    file = make(tmp_path, Generation(2, "r", {"job": "caption"}, frozenset({"answers/x.parquet"}), {"_run.json": {}}))
    make(tmp_path, Generation(1, "before"))
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=r"000002\.json, which says what belongs to OUTPUT, is damaged .*; move it"):
        newest(str(tmp_path))
    file.unlink()
    assert newest(str(tmp_path)).run_id == "before"  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"checksum": "x"})])
def test_a_generation_that_was_cut_is_named(tmp_path: Path, text: str) -> None:
    make(tmp_path, Generation(2, "r")).write_text(text)
    with pytest.raises(SettingsError, match="is damaged"):
        newest(str(tmp_path))


def test_the_place_of_a_folder() -> None:
    assert place_of("s3://b/out/answers/") == ("s3://b/out", "answers")
    assert place_of("out/_state/work_list") == ("out", "_state/work_list")
    assert place_of("_state/work_list") == (".", "_state/work_list")
    assert place_of("answers") == (".", "answers")


def test_what_lies_in_a_folder_of_an_underscore_is_no_answer(tmp_path: Path) -> None:
    """The work list of a run that was stopped before its first part, say."""
    for name in ("_state/work_list/part-000000.parquet", "a/_temporary/0.parquet", "a/b_c/_own.parquet"):
        part(tmp_path, name)
    assert counted(tmp_path) == ["a/b_c/_own.parquet"]
