"""What is durable: parts and repeats."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.output.lease import LeaseLost
from pipelines.output.parts import Done, PartWriter, read_done, reread_if_changed


def rows(*ids: int, code: str | None = None) -> pa.Table:
    return pa.table(
        {
            "row_id": pa.array(ids, pa.int64()),
            "error_code": pa.array([code] * len(ids), pa.string()),
            "decoded_s": [1.5] * len(ids),
        }
    )


def writer(
    folder: Path, done: Done, commit_rows: int = 3, seconds: float = 1e9, check_lease=lambda: None
) -> PartWriter:  # type: ignore[no-untyped-def]
    return PartWriter(str(folder), "run", done, commit_rows, seconds, check_lease)


def test_parts_have_commit_rows_and_every_row_comes_once(tmp_path: Path) -> None:
    done = Done(np.zeros(10, bool))
    parts = writer(tmp_path, done)
    parts.add(rows(4, 1))
    parts.add(rows(1, 4, 2, 2))  # Ray did a block again
    parts.add(rows(9, 8, 7, 6, code="not_audio"))
    sizes = sorted(pq.read_table(path).num_rows for path in tmp_path.iterdir())
    assert sizes == [3, 3]
    parts.flush()
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == [1, 2, 4, 6, 7, 8, 9]
    assert done.errors == {"not_audio": 4}
    assert done.seconds == pytest.approx(7 * 1.5)
    again = read_done(str(tmp_path), 10)
    assert np.flatnonzero(again.mask).tolist() == [1, 2, 4, 6, 7, 8, 9]
    assert (again.errors, again.seconds) == (done.errors, done.seconds)


def test_time_makes_a_part_too(tmp_path: Path) -> None:
    parts = writer(tmp_path, Done(np.zeros(4, bool)), commit_rows=1000, seconds=1e-9)
    parts.add(rows(0))
    parts.add(rows(1, 2))
    assert len(list(tmp_path.iterdir())) == 2


def test_who_lost_the_lease_writes_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLost("another run")

    with pytest.raises(LeaseLost):
        writer(tmp_path, Done(np.zeros(4, bool)), check_lease=lost).add(rows(0, 1, 2))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_a_part_is_written_waits_for_it(tmp_path: Path) -> None:
    done = Done(np.zeros(9, bool))
    parts = writer(tmp_path, done, check_lease=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        parts.add(rows(0, 1, 2, 3, 4))
    assert pq.read_table(tmp_path)["row_id"].to_pylist() == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        parts.flush()
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == [0, 1, 2, 3, 4]
    assert done.rows == 5


def test_a_part_that_was_never_put_in_place_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet.12345678.partial").write_bytes(b"PAR1 torn")
    assert read_done(str(tmp_path), 3).rows == 0


def test_a_part_that_came_late_leaves_no_row_twice(tmp_path: Path) -> None:
    """Its writer lost the lease while the store was slow; the next one had done the rows by then."""
    done = Done(np.zeros(6, bool))
    parts = writer(tmp_path, done, commit_rows=6)
    parts.add(rows(0, 1, 2, 3, 4, 5))
    pq.write_table(rows(1, 2), tmp_path / "part-000000000001-late-00000.parquet")
    again = reread_if_changed(str(tmp_path), done)
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == list(range(6))
    assert (again.rows, again.seconds, again.parts) == (6, 9.0, {path.name for path in tmp_path.iterdir()})
    pq.write_table(rows(5, 6, 6), tmp_path / "part-000000000005-late-00000.parquet")
    assert read_done(str(tmp_path), 7).rows == 7
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == list(range(7))
    (tmp_path / "part-000000000005-late-00000.parquet").unlink()  # it had row 6
    assert reread_if_changed(str(tmp_path), again).rows == 6
    (tmp_path / "part-000000000000-run-00000.parquet").unlink()
    assert reread_if_changed(str(tmp_path), again).rows == 0


def test_rows_with_an_error_are_taken_out_when_they_are_to_be_done_again(tmp_path: Path) -> None:
    parts = writer(tmp_path, Done(np.zeros(7, bool)), commit_rows=3)
    for table in (rows(0, 1), rows(2, 3, code="timeout"), rows(4, code="not_audio"), rows(5, 6, code="io_error")):
        parts.add(table)
    parts.flush()
    done = read_done(str(tmp_path), 7, ("timeout", "io_error"))
    assert np.flatnonzero(done.mask).tolist() == [0, 1, 4]
    assert done.errors == {"not_audio": 1}
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == [0, 1, 4]


def test_a_file_that_is_no_part_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(SettingsError, match=r"^output: .*mine\.parquet is no part of earlier results.*row_id.*; move"):
        read_done(str(tmp_path), 3)
    (tmp_path / "mine.parquet").write_bytes(b"no Parquet")
    with pytest.raises(SettingsError, match=r"^output: .*mine\.parquet is no part of earlier results"):
        read_done(str(tmp_path), 3)
