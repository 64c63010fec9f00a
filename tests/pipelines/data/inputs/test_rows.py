"""Rows of a list: stretches, channels, and paths of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.errors import SettingsError
from pipelines.archive.headers import Scanner
from pipelines.data.inputs import entry_key, open_input
from pipelines.settings.archive import LimitSettings
from tests.pipelines.data.inputs.made import RATE, loudest, sound, write


def _list(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.processes
def test_a_row_is_only_the_stretch_that_it_names(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 30.0)
    rows = ["a.wav,2.5,27.5", "a.wav,,5", "a.wav,20,", "a.wav,,", "a.wav,25,99", "a.wav,31,40"]
    source = open_input(_list(tmp_path / "list.csv", "uri,start_s,end_s", *rows))
    assert source.own_schema.names == []
    entries = list(source.entries)
    assert len({entry_key(entry, {}, 0) for entry in entries}) == 6
    with Scanner(10.0, LimitSettings(), 1) as scanner:
        found = [rows for _, rows in scanner.rows(entries)]
    told = [[(row["start_s"], row["duration_s"], row["last"]) for row in rows] for rows in found]
    assert told == [
        [(2.5, 10.0, False), (12.5, 10.0, False), (22.5, 5.0, False)],
        [(0.0, 5.0, False)],
        [(20.0, 10.0, True)],
        [(0.0, 10.0, False), (10.0, 10.0, False), (20.0, 10.0, True)],
        [(25.0, 5.0, False)],
        [(31.0, None, False)],
    ]
    assert [rows[0]["error_code"] for rows in found] == [None] * 5 + ["empty_audio"]
    assert "the file ends at 30.0 s" in found[5][0]["error_message"]
    ids = [row["chunk_id"] for rows in found for row in rows]
    assert len(set(ids)) == len(ids) - 1  # the last ten seconds are the same chunk, whether named or not


@pytest.mark.parametrize("stretch", ["-1,2", "3,3", "4,2", "x,", ",nan", "inf,", "1e300,"])
def test_a_stretch_that_is_none_costs_its_row(tmp_path: Path, stretch: str) -> None:
    write(tmp_path / "a.wav")
    listed = _list(tmp_path / "list.csv", "uri,start_s,end_s", f"a.wav,{stretch}", "a.wav,0,1")
    first, second = open_input(listed).entries
    assert first.error is not None and first.error[0] == "refused" and second.error is None


def test_numbers_in_parquet_and_a_row_of_sounds_may_be_a_stretch_too(tmp_path: Path) -> None:
    table = pa.table(
        {"audio": [sound(3.0)], "start_s": pa.array([1], pa.int32()), "end_s": pa.array([2.5], pa.float32())}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (entry,) = open_input(str(tmp_path / "a.parquet")).entries
    assert (entry.start_s, entry.end_s, entry.own, entry.error) == (1.0, 2.5, {}, None)


@pytest.mark.processes
def test_one_channel_alone_is_heard(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 1.0, 440.0, 880.0)
    listed = _list(tmp_path / "list.csv", "uri,only_channel", "a.wav,0", "a.wav,1", "a.wav,2", "a.wav,", "a.wav,left")
    source = open_input(listed)
    assert source.own_schema == pa.schema([("only_channel", pa.int64())])
    entries = list(source.entries)
    assert [entry.own["only_channel"] for entry in entries] == [0, 1, 2, None, None]
    assert entries[4].error is not None and "'left'" in entries[4].error[1]
    with IsolatedDecoder(sample_rate=RATE) as decoder:
        asked = [DecodeRequest(entry.uri, channel=entry.own["only_channel"]) for entry in entries[:4]]
        left, right, none, both = decoder.decode_many(asked)
    assert (loudest(left.samples, RATE), loudest(right.samples, RATE)) == (440.0, 880.0)  # type: ignore[union-attr]
    assert (none.code, none.message) == ("refused", "has 2 channels, and channel 2 is asked for")  # type: ignore[union-attr]
    mean = (left.samples.astype(int) + right.samples) / 2  # type: ignore[union-attr]
    assert np.abs(both.samples - mean).max() <= 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (r"C:\sounds\a.wav", "a drive"),
        ("d:/sounds/a.wav", "a drive"),
        (r"\\server\share\a.wav", "a network share"),
        ("file:///C:/sounds/a.wav", "a drive"),
    ],
)
def test_paths_of_windows_are_told_apart(tmp_path: Path, given: str, word: str) -> None:
    write(tmp_path / "a.wav")
    first, second = open_input(_list(tmp_path / "list.csv", "uri", given, "a.wav")).entries
    assert first.error is not None and first.error[0] == "refused"
    assert "a path of Windows" in first.error[1] and word in first.error[1]
    assert second.error is None
    if not given.startswith("file"):
        with pytest.raises(SettingsError, match="a path of Windows"):
            open_input(given)


def test_backslashes_in_a_relative_path_are_steps_where_no_file_is_called_so(tmp_path: Path) -> None:
    write(tmp_path / "night" / "a.wav")
    write(tmp_path / r"odd\b.wav")
    rows = [r"night\a.wav", r"odd\b.wav", r"..\c.wav", r"night\gone.wav", "gone.wav"]
    inside, odd, out, gone, plain = open_input(_list(tmp_path / "list.csv", "uri", *rows)).entries
    assert (inside.uri, inside.path, inside.error) == (str(tmp_path / "night" / "a.wav"), r"night\a.wav", None)
    assert odd.uri == str(tmp_path / r"odd\b.wav") and odd.error is None
    assert out.error is not None and out.error[0] == "refused"
    for each in (gone, plain):
        assert each.error is not None and each.error[0] == "not_found"
        assert f"in the list's folder, {tmp_path}" in each.error[1]


def test_a_list_may_name_a_row_of_a_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"audio": [sound(0.1), sound(0.2)]}), tmp_path / "a.parquet")
    second = list(open_input(str(tmp_path / "a.parquet")).entries)[1]
    listed = _list(tmp_path / "list.csv", "uri", second.uri, "parquet+nonsense", f"parquet+s3://b/{'x' * 3}!0+a/")
    named, _, elsewhere = open_input(listed, schemes=["file"]).entries
    assert (named.uri, named.version, named.error) == (second.uri, second.version, None)
    assert elsewhere.error is not None and "names s3://" in elsewhere.error[1]
