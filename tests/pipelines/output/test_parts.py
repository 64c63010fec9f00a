"""What is durable: parts and repeats."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.data import generations, parquet
from pipelines.output.folder import Output, open_output
from pipelines.output.lease import Lease, LeaseLost
from pipelines.output.parts import Done, PartWriter, read_done, reread_if_changed


def rows(*ids: int, code: str | None = None) -> pa.Table:
    return pa.table(
        {
            "row_id": pa.array(ids, pa.int64()),
            "error_code": pa.array([code] * len(ids), pa.string()),
            "decoded_s": [1.5] * len(ids),
        }
    )


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Output]:
    """An OUTPUT that is held."""
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        yield out


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Its folder of parts."""
    (tmp_path / "answers").mkdir()
    return tmp_path / "answers"


def writer(out: Output, done: Done, commit_rows: int = 3, seconds: float = 1e9, put: Any = None) -> PartWriter:
    return PartWriter("answers", out.run_id, done, commit_rows, seconds, put or out.put_table)


def test_parts_have_commit_rows_and_every_row_comes_once(out: Output, answers: Path) -> None:
    done = Done(np.zeros(10, bool))
    parts = writer(out, done)
    parts.add(rows(4, 1))
    parts.add(rows(1, 4, 2, 2))  # Ray did a block again
    parts.add(rows(9, 8, 7, 6, code="not_audio"))
    sizes = sorted(pq.read_table(path).num_rows for path in answers.iterdir())
    assert sizes == [3, 3]
    parts.flush()
    assert sorted(pq.read_table(answers)["row_id"].to_pylist()) == [1, 2, 4, 6, 7, 8, 9]
    assert done.errors == {"not_audio": 4}
    assert done.seconds == pytest.approx(7 * 1.5)
    again = read_done(out, "answers", 10)
    assert np.flatnonzero(again.mask).tolist() == [1, 2, 4, 6, 7, 8, 9]
    assert (again.errors, again.seconds) == (done.errors, done.seconds)


def test_time_makes_a_part_too(out: Output, answers: Path) -> None:
    parts = writer(out, Done(np.zeros(4, bool)), commit_rows=1000, seconds=1e-9)
    parts.add(rows(0))
    parts.add(rows(1, 2))
    assert len(list(answers.iterdir())) == 2


def test_who_lost_the_lease_writes_nothing(out: Output, answers: Path) -> None:
    other = Lease(out.uri, "another")
    other.begin(out.lease.generation, out.lease.generation)
    with pytest.raises(LeaseLost, match="another run took this OUTPUT over"):
        writer(out, Done(np.zeros(4, bool))).add(rows(0, 1, 2))
    assert list(answers.iterdir()) == []
    other.release()


@pytest.mark.parametrize("adopted", [False, True])
def test_who_lost_the_lease_while_it_wrote_takes_its_part_back(out: Output, answers: Path, adopted: bool) -> None:
    """Frozen between the look at the lease and the write, or between the write and the next look: then the newer run
    has taken the part over, and it stays."""
    other = Lease(out.uri, "another")

    def put(name: str, table: pa.Table) -> None:
        def write(uri: str) -> None:
            if adopted:
                parquet.write(uri, table)
            taken = frozenset(f"answers/{path.name}" for path in answers.iterdir())
            other.begin(out.lease.generation, replace(out.lease.generation, files=taken))
            if not adopted:
                parquet.write(uri, table)

        out.put(name, write)

    with pytest.raises(LeaseLost):
        writer(out, Done(np.zeros(4, bool)), put=put).add(rows(0, 1, 2))
    assert len(list(answers.iterdir())) == len(generations.files(str(answers))) == int(adopted)
    other.release()


def test_an_interrupt_while_a_part_is_written_waits_for_it(out: Output, answers: Path) -> None:
    done = Done(np.zeros(9, bool))

    def put(name: str, table: pa.Table) -> None:
        signal.raise_signal(signal.SIGINT)
        out.put_table(name, table)

    parts = writer(out, done, put=put)
    with pytest.raises(KeyboardInterrupt):
        parts.add(rows(0, 1, 2, 3, 4))
    assert pq.read_table(answers)["row_id"].to_pylist() == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        parts.flush()
    assert sorted(pq.read_table(answers)["row_id"].to_pylist()) == [0, 1, 2, 3, 4]
    assert done.rows == 5


def test_a_part_that_was_never_put_in_place_does_not_count(out: Output, answers: Path) -> None:
    (answers / "part-0.parquet.12345678.partial").write_bytes(b"PAR1 torn")
    assert read_done(out, "answers", 3).rows == 0


def test_rows_that_an_older_version_left_twice_come_once(tmp_path: Path) -> None:
    """Of a writer that had lost the lease: its part came late, and the next one had done the rows by then."""
    answers = tmp_path / "answers"
    answers.mkdir()
    pq.write_table(rows(0, 1, 2, 3, 4, 5), answers / "part-000000000000-run-00000.parquet")
    pq.write_table(rows(1, 2, 6, 6), answers / "part-000000000001-late-00000.parquet")
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        done = read_done(out, "answers", 7)
        assert (done.rows, done.seconds, done.parts) == (7, 10.5, {path.name for path in answers.iterdir()})
        assert sorted(pq.read_table(answers)["row_id"].to_pylist()) == list(range(7))
        assert reread_if_changed(out, "answers", done) is done
        (answers / "part-000000000000-run-00000.parquet").unlink()
        assert reread_if_changed(out, "answers", done).rows == 1
    with open_output(str(tmp_path), {"job": "caption"}) as out:
        assert read_done(out, "answers", 7).rows == 1


def test_rows_with_an_error_are_taken_out_when_they_are_to_be_done_again(out: Output, answers: Path) -> None:
    parts = writer(out, Done(np.zeros(7, bool)), commit_rows=3)
    for table in (rows(0, 1), rows(2, 3, code="timeout"), rows(4, code="not_audio"), rows(5, 6, code="io_error")):
        parts.add(table)
    parts.flush()
    for _ in range(2):
        done = read_done(out, "answers", 7, ("timeout", "io_error"))
        assert np.flatnonzero(done.mask).tolist() == [0, 1, 4]
        assert done.errors == {"not_audio": 1}
        assert sorted(pq.read_table(answers)["row_id"].to_pylist()) == [0, 1, 4]
        assert {path.name for path in answers.iterdir()} == done.parts


def test_a_file_that_is_no_part_is_named(out: Output, answers: Path, tmp_path: Path) -> None:
    mine = answers / f"mine-{out.run_id}.parquet"
    pq.write_table(pa.table({"a": [1]}), mine)
    with pytest.raises(SettingsError, match=r"^output: .*mine.*is no part of earlier results.*row_id.*; move"):
        read_done(out, "answers", 3)
    mine.write_bytes(b"no Parquet")
    with pytest.raises(SettingsError, match=r"^output: .*mine.*\.parquet is no part of earlier results"):
        read_done(out, "answers", 3)
    (answers / "mine.parquet").write_bytes(b"put there between two runs")
    mine.unlink()
    out.lease.release()
    with open_output(str(tmp_path), {"job": "caption"}) as later, pytest.raises(SettingsError, match="mine"):
        read_done(later, "answers", 3)


def test_a_part_with_a_flipped_bit_is_named(out: Output, answers: Path) -> None:
    writer(out, Done(np.zeros(3, bool))).add(rows(0, 1, 2))
    part = next(answers.iterdir())
    data = bytearray(part.read_bytes())
    data[40] ^= 4
    part.write_bytes(data)
    with pytest.raises(SettingsError, match=r"is no part of earlier results .*(CRC|checksum).*; move this"):
        read_done(out, "answers", 3)


def test_answers_without_their_work_list_are_refused(out: Output, answers: Path) -> None:
    """A lost file of the work list ended in an IndexError."""
    writer(out, Done(np.zeros(3, bool))).add(rows(0, 1, 2))
    with pytest.raises(SettingsError, match=r"rows beyond the 2 of the work list, of which a file is lost; bring"):
        read_done(out, "answers", 2)


def test_parts_of_an_older_version_without_completeness_are_read_beside_newer_ones(out: Output, answers: Path) -> None:
    newer = rows(2, 3, 4).append_column("complete", pa.array([True, False, None]))
    for table in (rows(0, 1), newer.append_column("lost_s", pa.array([0.0, 2.5, 0.0]))):
        parts = writer(out, Done(np.zeros(5, bool)))
        parts.add(table)
        parts.flush()
    done = read_done(out, "answers", 5)
    assert (done.rows, done.seconds, done.incomplete, done.lost_s) == (5, 7.5, 1, 2.5)
