"""Parquet files with the sounds in them, written by `datasets` and by pyarrow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.storage.archives import rows
from pipelines.data.inputs import open_input
from tests.pipelines.data.inputs.made import sound, write

SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _table(values: list[Any], kind: pa.DataType = SOUND, **more: list[Any]) -> pa.Table:
    return pa.table({"audio": pa.array(values, kind), **more})


def test_a_data_set_of_the_hub_gives_its_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"audio": datasets.Audio(), "text": datasets.Value("string"), "label": datasets.Value("int64")}
    )
    records = [
        {"audio": {"bytes": sound(0.2, 300 + 10 * n), "path": f"clip {n}.wav"}, "text": f"said {n}", "label": n}
        for n in range(250)
    ]
    plain = pa.Table.from_pylist(records)  # note: to encode sounds itself it would need torchcodec
    made = datasets.Dataset(plain).cast(features)
    made.to_parquet(str(tmp_path / "train.parquet"), batch_size=100)
    assert pq.ParquetFile(tmp_path / "train.parquet").num_row_groups == 3
    source = open_input(str(tmp_path / "train.parquet"))
    found = list(source.entries)
    assert source.own_schema == pa.schema([("own_text", pa.string()), ("label", pa.int64())])
    assert [entry.path for entry in found] == [f"train.parquet#row={n}" for n in range(250)]
    assert [entry.own for entry in found] == [{"own_text": f"said {n}", "label": n} for n in range(250)]
    assert found[17].uri == f"parquet+file://{tmp_path}/train.parquet!17+audio/clip 17.wav"
    for number in (0, 17, 99, 100, 249, 3):  # forwards, into the next row group, and back
        assert storage.read_bytes(found[number].uri) == records[number]["audio"]["bytes"]
    assert storage.stat(found[17].uri).version == found[17].version


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("record", [True, False])
def test_every_kind_of_bytes_is_read(tmp_path: Path, kind: pa.DataType, record: bool) -> None:
    wanted = [sound(0.1, 400), sound(0.1, 500)]
    if record:
        inner = pa.struct([("bytes", kind), ("path", pa.string())])
        plain = pa.array([{"bytes": each, "path": None} for each in wanted], inner)
    else:
        plain = pa.array(wanted, kind)
    try:
        pq.write_table(pa.table({"audio": plain}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this pyarrow writes no such column")
    found = list(open_input(str(tmp_path / "a.parquet")).entries)
    assert [storage.read_bytes(entry.uri) for entry in found] == wanted


def test_rows_without_bytes_name_files_beside_theirs_and_rows_without_either_say_so(tmp_path: Path) -> None:
    write(tmp_path / "beside.wav")
    values = [
        {"bytes": sound(0.1), "path": "inside.wav"},
        {"bytes": None, "path": "beside.wav"},
        {"bytes": None, "path": None},
        None,
        {"bytes": None, "path": "../out.wav"},
        {"bytes": None, "path": "gone.wav"},
    ]
    pq.write_table(_table(values), tmp_path / "a.parquet")
    inside, beside, *others = open_input(str(tmp_path / "a.parquet")).entries
    assert inside.error is None and storage.read_bytes(inside.uri) == values[0]["bytes"]
    assert (beside.uri, beside.error, beside.size) == (
        str(tmp_path / "beside.wav"), None, (tmp_path / "beside.wav").stat().st_size,
    )  # fmt: skip
    codes = [entry.error[0] for entry in others if entry.error]
    assert codes == ["refused", "refused", "refused", "not_found"]
    assert others[0].error is not None and "neither bytes nor path" in others[0].error[1]


def test_rows_from_a_store_name_nothing_on_this_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(_table([{"bytes": None, "path": "/etc/hostname"}]), tmp_path / "a.parquet")
    (entry,) = open_input(str(tmp_path / "a.parquet"), schemes=["s3"]).entries
    assert entry.error is not None and entry.error[0] == "refused"


def test_a_folder_and_a_glob_of_such_files_and_other_tables_in_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(
            _table([{"bytes": sound(0.1), "path": None}] * 2, station=[name] * 2), tmp_path / f"{name}.parquet"
        )
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    write(tmp_path / "c.wav")
    source = open_input(str(tmp_path))
    found = list(source.entries)
    rows_of_both = [f"{name}.parquet#row={number}" for name in "ab" for number in (0, 1)]
    assert [entry.path for entry in found] == [*rows_of_both, "c.wav"]
    assert [entry.own.get("station") for entry in found] == ["a", "a", "b", "b", None]
    assert source.skipped == {".parquet": 1}
    matched = open_input(str(tmp_path / "[ab].parquet"))
    assert [entry.path for entry in matched.entries] == rows_of_both


def test_a_torn_file_among_such_files_costs_one_row(tmp_path: Path) -> None:
    for name in "abc":
        pq.write_table(_table([{"bytes": sound(0.1), "path": None}]), tmp_path / f"{name}.parquet")
    torn = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(torn[:-8])
    found = [(entry.path, entry.error and entry.error[0]) for entry in open_input(str(tmp_path)).entries]
    assert found == [("a.parquet#row=0", None), ("b.parquet", "io_error"), ("c.parquet#row=0", None)]


def test_one_column_of_several_is_meant(tmp_path: Path) -> None:
    one = pa.array([{"bytes": sound(0.1), "path": None}], SOUND)
    pq.write_table(pa.table({"clean": one, "noisy": one}), tmp_path / "a.parquet")
    with pytest.raises(SettingsError, match="2 columns with sound, clean, noisy; call the one that is meant `audio`"):
        open_input(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"speech": one, "image": one}), tmp_path / "b.parquet")
    (entry,) = open_input(str(tmp_path / "b.parquet"), columns=["speech"]).entries
    assert "!0+speech/" in entry.uri


def test_a_large_row_group_is_read_forwards_and_never_held_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    values = [{"bytes": noise.bytes(1 << 20), "path": None} for _ in range(64)]
    pq.write_table(
        _table(values), tmp_path / "a.parquet", row_group_size=64, write_batch_size=1, data_page_size=1 << 20
    )
    found = list(open_input(str(tmp_path / "a.parquet")).entries)
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    for entry, value in zip(found, values, strict=True):
        assert storage.read_bytes(entry.uri) == value["bytes"]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 24 << 20 and tracemalloc.get_traced_memory()[1] < 24 << 20
    tracemalloc.stop()


def test_the_rows_of_a_group_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(_table([{"bytes": sound(0.1), "path": None}] * 40), tmp_path / "a.parquet", row_group_size=20)
    found = list(open_input(str(tmp_path / "a.parquet")).entries)
    begun = []
    real = rows._Column._begin
    monkeypatch.setattr(rows._Column, "_begin", lambda self, *args: (begun.append(args), real(self, *args))[1])
    for entry in found:
        storage.read_bytes(entry.uri)
    assert begun == [(0, 0), (1, 20)]


def test_what_is_no_row_and_what_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_table([{"bytes": sound(0.1), "path": "x.wav"}]), path)
    (entry,) = open_input(str(path)).entries
    with pytest.raises(storage.StorageError, match="row 7 of a Parquet file that has 1"):
        storage.open_binary(entry.uri.replace("!0+", "!7+"))
    with pytest.raises(storage.StorageError, match="without a column `none`"):
        storage.open_binary(entry.uri.replace("+audio/", "+none/"))
    with pytest.raises(storage.StorageError) as large:
        storage.open_binary(entry.uri, max_bytes=10)
    assert large.value.code == "too_large"
    pq.write_table(_table([{"bytes": sound(0.2), "path": "x.wav"}]), path)
    with pytest.raises(storage.StorageError, match="changed"):
        storage.open_binary(entry.uri, listed=storage.Listed(0, entry.version))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(storage.StorageError) as torn:
        storage.open_binary(entry.uri)
    assert torn.value.code == "io_error"
    path.unlink()
    with pytest.raises(storage.StorageError) as gone:
        storage.open_binary(entry.uri)
    assert gone.value.code == "not_found"


@pytest.mark.parametrize("name", ["a b.parquet", "ü#?!3+x.parquet", "100%25.parquet"])
def test_addresses_lead_back_whatever_the_names(tmp_path: Path, name: str) -> None:
    column = "my/audio+1.x"
    values = pa.array([{"bytes": sound(0.1, n), "path": f"/x/{n}!1+2/é.wav"} for n in (300, 400)], SOUND)
    pq.write_table(pa.table({column: values}), tmp_path / name)
    found = list(open_input(str(tmp_path / name)).entries)
    assert [storage.read_bytes(entry.uri) for entry in found] == [sound(0.1, 300), sound(0.1, 400)]
    assert all(storage.public_uri(entry.uri) == entry.uri for entry in found)
