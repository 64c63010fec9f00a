"""Few large files out of many parts: every row once, in order, safe to kill, read by other programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset, partitioning

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines import compact
from pipelines.compact import run_compact
from pipelines.data import parquet
from pipelines.data.results import read_rows
from pipelines.output.parts import Done, PartWriter
from pipelines.settings.base import build
from pipelines.settings.compact import CompactSettings
from tests.store_servers import KEYS, MotoStore

ROOT = Path(__file__).parents[2]
ROWS = 3000
FORMATS = ("wav", "mp3", None, "a/b=c")


def write_parts(out: Path, rows: int = ROWS, noise: int = 40) -> pa.Table:
    """An OUTPUT of `rows` rows in parts of 100, come in disorder as from several actors; returns its rows."""
    draw = np.random.default_rng(1)
    table = pa.table(
        {
            "row_id": np.arange(rows),
            "format": [FORMATS[i % 4] for i in range(rows)],
            "text": [draw.bytes(noise).hex() for _ in range(rows)],
            "segments": [[{"start_s": float(i), "text": "x"}] for i in range(rows)],
            "error_code": pa.array([None] * rows, pa.string()),
            "decoded_s": [1.0] * rows,
        }
    )

    def put(name: str, part: pa.Table) -> None:
        parquet.write(str(out / name), part)

    parts = PartWriter("answers", "run", Done(np.zeros(rows, bool)), 100, 1e9, put)
    blocks = [table.slice(at, 30) for at in range(0, rows, 30)]
    for index in np.argsort(np.arange(len(blocks)) + draw.uniform(0, 12, len(blocks))):
        parts.add(blocks[index])
    parts.flush()
    run = {"job": "caption", "status": "complete", "rows": rows, "rows_done": rows}
    (out / "_run.json").write_text(json.dumps(run))
    return table


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUTPUT of 30 parts."""
    out = tmp_path_factory.mktemp("finished")
    write_parts(out)
    return out


def expected(out: Path) -> pa.Table:
    return pq.read_table(out / "answers").sort_by("row_id")


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> float:
    """Bytes of a file where `file_mb` is 128, the least: 50 kB."""
    monkeypatch.setattr(compact, "MEGABYTE", 0.05e6 / 128)
    return 0.05e6


def test_a_run_that_lost_a_part_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path / "run", 300)
    next((tmp_path / "run" / "answers").glob("*.parquet")).unlink()
    with pytest.raises(
        SettingsError, match=r"^input: .* is to have 300 rows, and its parts hold 200; run `mats caption` again"
    ):
        compacted(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize("content", [b"no Parquet", None])
def test_a_part_that_is_none_is_a_wrong_setting(tmp_path: Path, content: bytes | None) -> None:
    write_parts(tmp_path / "run", 300)
    foreign = tmp_path / "run" / "answers" / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    if content is not None:
        foreign.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^input: .*mine\.parquet is no whole part of a run"):
        compacted(tmp_path / "run", tmp_path / "out")


def test_an_output_with_files_of_others_is_refused(tmp_path: Path) -> None:
    """A name such as data-2024-7.parquet would be read as how far an earlier run had come."""
    write_parts(tmp_path / "run", 300)
    theirs = tmp_path / "out" / "answers" / "data-2024-7.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(SettingsError, match="has a folder `answers` with files that no run has made"):
        compacted(tmp_path / "run", tmp_path / "out")
    theirs.rename(tmp_path / "theirs")
    compacted(tmp_path / "run", tmp_path / "out")
    (tmp_path / "theirs").rename(theirs)
    with pytest.raises(SettingsError, match="move this file away"):
        compacted(tmp_path / "run", tmp_path / "out")
    for inside in ("run", "run/answers", "run/answers/below"):
        with pytest.raises(SettingsError, match="is where INPUT is, which is only read; choose another folder"):
            compacted(tmp_path / "run", tmp_path / inside)


def compacted(source: Path, out: Path | str, **given: object) -> compact.CompactResult:
    return run_compact(CompactSettings(input=str(source), output=str(out), **given))  # type: ignore[arg-type]


def test_few_files_hold_every_row_in_order(finished: Path, tmp_path: Path, small_files: float) -> None:
    result = compacted(finished, tmp_path, file_mb=128)
    files = sorted((tmp_path / "answers").iterdir())
    assert (result.rows, result.new_rows, result.parts, result.files) == (ROWS, ROWS, 30, len(files))
    sizes = [file.stat().st_size for file in files]
    assert all(0.5 * small_files <= size <= 1.5 * small_files for size in sizes), sizes
    assert 3 < len(files) < 30
    assert pa.concat_tables(pq.read_table(file) for file in files).equals(expected(finished))
    again = compacted(finished, tmp_path, file_mb=128)
    assert (again.new_rows, again.files) == (0, len(files))


def test_pandas_and_duckdb_read_parts_and_partitions_alike(finished: Path, tmp_path: Path) -> None:
    compacted(finished, tmp_path / "flat")
    compacted(finished, tmp_path / "parted", partition_by="format")
    assert len(list((tmp_path / "flat" / "answers").iterdir())) == 1
    folders = sorted(path.name for path in (tmp_path / "parted" / "answers").iterdir())
    assert folders == ["format=__HIVE_DEFAULT_PARTITION__", "format=a%2Fb%3Dc", "format=mp3", "format=wav"]
    truth = expected(finished).to_pandas()
    for name in ("flat", "parted"):
        # note: pandas' own reading of Hive's folders makes categories, of which pyarrow has none with nulls
        frame = dataset(tmp_path / name / "answers", partitioning="hive").to_table().to_pandas()
        frame = frame.sort_values("row_id", ignore_index=True)
        assert frame["text"].tolist() == truth["text"].tolist()
        assert frame["format"].tolist() == [FORMATS[i % 4] for i in range(ROWS)]
    without_null = pd.read_parquet(tmp_path / "parted" / "answers", filters=[("format", "in", ["wav", "mp3"])])
    assert len(without_null) == ROWS // 2
    for folder in (finished, tmp_path / "flat", tmp_path / "parted"):
        files = f"read_parquet('{folder}/answers/**/*.parquet', hive_partitioning = true)"
        found = duckdb.sql(f"select count(*), count(distinct row_id), sum(row_id) from {files}").fetchall()[0]
        assert found == (ROWS, ROWS, ROWS * (ROWS - 1) // 2)
        slashed = duckdb.sql(f"select count(*) from {files} where format = 'a/b=c'").fetchall()[0]
        assert slashed == (ROWS // 4,)


ODD = [None, "", "null", "..", ".", "a/b", "a=b", "50%", "ü/日本", " lead", "trail ", "A", "a"]


def test_folders_of_odd_values_are_read_back_as_the_values(tmp_path: Path) -> None:
    table = write_parts(tmp_path / "run", 300)
    columns = {
        "odd=/ü": pa.array([ODD[i % len(ODD)] for i in range(300)]),
        "long": pa.array(["x" * 251 if i == 7 else "y" for i in range(300)]),
        "number": pa.array([None if i % 3 == 0 else i % 3 - 1 for i in range(300)]),
        "day": pa.array([i % 2 * 2**21 for i in range(300)], pa.timestamp("s")),
        "bytes": pa.array([b"x"] * 300),
        "none": pa.array(["__HIVE_DEFAULT_PARTITION__"] * 300),
    }
    for part in (tmp_path / "run" / "answers").glob("*.parquet"):
        rows = pq.read_table(part)
        for name, values in columns.items():
            rows = rows.append_column(name, values.take(rows["row_id"]))
        pq.write_table(rows, part)
    for name in ("odd=/ü", "number", "day"):
        out = tmp_path / f"out {len(name)}{name[0]}"
        compacted(tmp_path / "run", out, partition_by=name)
        schema = pa.schema([(name, columns[name].type)])
        read = dataset(out / "answers", partitioning=partitioning(schema, flavor="hive")).to_table().sort_by("row_id")
        assert read[name].to_pylist() == columns[name].to_pylist()
        assert read["text"].equals(table["text"])
        files = f"read_parquet('{out}/answers/**/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
        if name == "odd=/ü":
            query = f'select "odd%3D%2Fü" from {files} order by row_id'
            assert [row[0] for row in duckdb.sql(query).fetchall()] == columns[name].to_pylist()
    with pytest.raises(SettingsError, match="has a value that makes a folder name of 256 bytes") as caught:
        compacted(tmp_path / "run", tmp_path / "long", partition_by="long")
    assert not (tmp_path / "long").exists(), caught
    with pytest.raises(SettingsError, match='"bytes" is binary, which no name of a folder can hold; choose one of'):
        compacted(tmp_path / "run", tmp_path / "bytes", partition_by="bytes")
    with pytest.raises(SettingsError, match="which readers take for none"):
        compacted(tmp_path / "run", tmp_path / "none", partition_by="none")


@pytest.mark.processes
def test_killed_at_random_moments_it_ends_with_the_same_files(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while files grow, twice; the data set is then, byte for byte, that of one run."""
    draw = np.random.default_rng(3)
    given = {"input": str(finished), "output": str(tmp_path / "killed"), "file_mb": 128, "partition_by": "format"}
    slow = (  # each file takes a moment, so that a kill finds work half done
        "import time; from pipelines import compact; put = compact.LargeFiles.put\n"
        "def slowly(*a): time.sleep(0.1); put(*a)\n"
        "compact.MEGABYTE = 0.02e6 / 128\n"
        f"compact.LargeFiles.put = slowly; compact.run_compact(compact.CompactSettings(**{given!r}))"
    )
    command = [sys.executable, "-c", slow]
    kept = []
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        before = len(list((tmp_path / "killed").rglob("*.parquet")))
        while process.poll() is None and len(list((tmp_path / "killed").rglob("*.parquet"))) <= before:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.2))
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept.append(len(list((tmp_path / "killed").rglob("*.parquet"))))
    assert kept == sorted(kept) and kept[0] > 0
    monkeypatch.setattr(compact, "MEGABYTE", 0.02e6 / 128)
    run_compact(CompactSettings(**given))  # type: ignore[arg-type]
    compacted(finished, tmp_path / "whole", file_mb=128, partition_by="format")

    def tree(out: Path) -> dict[str, bytes]:
        files = [path for path in out.rglob("*") if path.is_file() and "_state" not in path.parts]
        return {re.sub("-[0-9a-f]{12}[.]", ".", str(path.relative_to(out))): path.read_bytes() for path in files}

    killed, whole = tree(tmp_path / "killed"), tree(tmp_path / "whole")
    assert killed == whole
    assert {Path(name).suffix for name in whole} == {".parquet", ".json"}


def test_in_a_bucket_uploads_that_a_kill_left_are_thrown_away(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below OUTPUT, and nowhere else: they are in no listing and are paid for."""
    moto = MotoStore()
    for name, value in {**KEYS, "MATS_STORAGE": json.dumps({"s3://": {"endpoint": moto.endpoint}})}.items():
        monkeypatch.setenv(name, value)
    client = moto.client()
    client.create_bucket(Bucket="large")
    for key in ("out/answers/part-000000000000-000000000099.parquet", "out/answers-of-others/part", "elsewhere"):
        client.create_multipart_upload(Bucket="large", Key=key)
    compacted(finished, "s3://large/out")
    left = client.list_multipart_uploads(Bucket="large")["Uploads"]
    assert sorted(each["Key"] for each in left) == ["elsewhere", "out/answers-of-others/part"]
    (part,) = (info for info in storage.list_files("s3://large/out/answers"))
    assert pq.read_table(storage.open_binary(part.uri)).equals(expected(finished))
    moto.close()


@pytest.mark.parametrize("size", [127, 513, 0])
def test_a_file_has_128_to_512_megabytes(size: float) -> None:
    with pytest.raises(SettingsError, match=f"^file_mb: {size} is too (small|large); give a .*(128|512)$"):
        build(CompactSettings, {"input": "a", "output": "b", "file_mb": size})


@pytest.mark.parametrize("column", [None, "format"])
def test_rows_that_prune_leaves_out_are_not_in_the_large_files(tmp_path: Path, column: str | None) -> None:
    """Other programs cannot know of the mark in `_run.json`. A row that is back makes another compaction."""
    run, out, pruned = tmp_path / "run", tmp_path / "out", [[0, 0], [95, 104], [299, 299]]
    write_parts(run, 300)
    record = json.loads((run / "_run.json").read_text())
    (run / "_run.json").write_text(json.dumps({**record, "pruned": pruned, "gone": 3}))
    kept = [i for i in range(300) if i not in (0, *range(95, 105), 299)]
    result = compacted(run, out, partition_by=column)
    assert (result.rows, result.new_rows, result.pruned) == (288, 288, 12)
    assert read_rows(str(out / "answers"), ["row_id"])["row_id"].to_pylist() == kept
    assert read_rows(str(run / "answers"))["row_id"].to_pylist() == kept, "in Python neither"
    told = json.loads((out / "_run.json").read_text())
    assert (told["rows"], told["pruned"], told["compacted"]["pruned"]) == (288, [], 12)
    again = compacted(out, tmp_path / "again")
    assert (again.rows, again.pruned) == (288, 0), "a compaction is as whole as any other OUTPUT"
    (run / "_run.json").write_text(json.dumps({**record, "pruned": [[95, 104]]}))
    with pytest.raises(SettingsError, match="pruned was"):
        compacted(run, out, partition_by=column)
    assert compacted(run, out, partition_by=column, overwrite=True).rows == 290


def test_what_cannot_be_compacted_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no _run\.json"):
        compacted(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(SettingsError, match=r"^partition_by: there is no column .colour.*; choose one of .*format"):
        compacted(finished, tmp_path / "out", partition_by="colour")
    with pytest.raises(SettingsError, match="has more than 256 different values; choose a column of fewer"):
        compacted(finished, tmp_path / "out", partition_by="text")
    with pytest.raises(SettingsError, match="another folder"):
        compacted(finished, finished)
    running = tmp_path / "running"
    running.mkdir()
    (running / "_run.json").write_text(json.dumps({"job": "caption", "status": "interrupted"}))
    with pytest.raises(SettingsError, match=r"the run in .* is interrupted; run it to its end first"):
        compacted(running, tmp_path / "out")
    compacted(finished, tmp_path / "out")
    with pytest.raises(SettingsError, match="partition_by was null, is format"):
        compacted(finished, tmp_path / "out", partition_by="format")


def test_parts_of_an_older_version_lack_newer_columns_which_are_null(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_parts(out, rows=200)
    (newer,) = sorted((out / "answers").glob("*.parquet"))[1:]
    table = pq.read_table(newer)
    table = table.append_column("complete", pa.array([True] * len(table)))
    parquet.write(str(newer), table.append_column("lost_s", pa.array([0.0] * len(table))))
    run_compact(CompactSettings(input=str(out), output=str(tmp_path / "few")))
    found = pq.read_table(tmp_path / "few" / "answers").sort_by("row_id")
    assert found["row_id"].to_pylist() == list(range(200))
    assert found.schema.names[-2:] == ["complete", "lost_s"]
    first = table["row_id"][0].as_py()
    assert found["complete"].null_count == 200 - len(table)
    assert found["complete"][first].as_py() is True
