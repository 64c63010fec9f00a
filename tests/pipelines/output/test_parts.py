"""What is durable: parts, repeats, the identity of an OUTPUT."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mats_core.errors import SettingsError
from pipelines.archive.caption import run_caption
from pipelines.archive.scan import run_scan
from pipelines.output.lease import LeaseLost
from pipelines.output.parts import Done, PartWriter, check_identity, prepare_output, read_done, settled
from pipelines.output.removal import empty_output, remove_partials
from pipelines.settings.archive import CaptionSettings, ScanSettings


def rows(*ids: int, code: str | None = None) -> pa.Table:
    return pa.table(
        {
            "row_id": pa.array(ids, pa.int64()),
            "error_code": pa.array([code] * len(ids), pa.string()),
            "decoded_s": [1.5] * len(ids),
        }
    )


def writer(folder: Path, done: Done, commit_rows: int = 3, seconds: float = 1e9, guard=lambda: None) -> PartWriter:  # type: ignore[no-untyped-def]
    return PartWriter(str(folder), "run", done, commit_rows, seconds, guard)


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
        writer(tmp_path, Done(np.zeros(4, bool)), guard=lost).add(rows(0, 1, 2))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_a_part_is_written_waits_for_it(tmp_path: Path) -> None:
    done = Done(np.zeros(9, bool))
    parts = writer(tmp_path, done, guard=lambda: signal.raise_signal(signal.SIGINT))
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
    again = settled(str(tmp_path), done)
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == list(range(6))
    assert (again.rows, again.seconds, again.parts) == (6, 9.0, {path.name for path in tmp_path.iterdir()})
    pq.write_table(rows(5, 6, 6), tmp_path / "part-000000000005-late-00000.parquet")
    assert read_done(str(tmp_path), 7).rows == 7
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == list(range(7))
    (tmp_path / "part-000000000005-late-00000.parquet").unlink()  # it had row 6
    assert settled(str(tmp_path), again).rows == 6
    (tmp_path / "part-000000000000-run-00000.parquet").unlink()
    assert settled(str(tmp_path), again).rows == 0


def test_rows_with_an_error_are_taken_out_when_they_are_to_be_done_again(tmp_path: Path) -> None:
    parts = writer(tmp_path, Done(np.zeros(7, bool)), commit_rows=3)
    for table in (rows(0, 1), rows(2, 3, code="timeout"), rows(4, code="not_audio"), rows(5, 6, code="io_error")):
        parts.add(table)
    parts.flush()
    done = read_done(str(tmp_path), 7, ("timeout", "io_error"))
    assert np.flatnonzero(done.mask).tolist() == [0, 1, 4]
    assert done.errors == {"not_audio": 1}
    assert sorted(pq.read_table(tmp_path)["row_id"].to_pylist()) == [0, 1, 4]


def test_an_output_keeps_its_settings_and_says_what_differs(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    prepare_output(out)
    check_identity(out, {"model": "m1", "task": "caption"})
    check_identity(out, {"model": "m1", "task": "caption"})
    with pytest.raises(SettingsError, match="task was caption, is QA"):
        check_identity(out, {"model": "m1", "task": "QA"})
    with pytest.raises(SettingsError, match=r"choose another OUTPUT$"):  # not one of another job
        check_identity(out, {"model": "m1", "task": "caption", "job": "scan"})


def test_settings_found_wrong_by_the_scan_can_be_put_right(tmp_path: Path, tiny_model_dir: str) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.csv").write_text(f"uri,task\n{tmp_path}/a.wav,caption\n{tmp_path}/a.wav,QA\n")
    settings = CaptionSettings(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), model=tiny_model_dir)
    with pytest.raises(SettingsError, match="question"):
        run_caption(settings)
    assert list((tmp_path / "out" / "_state").iterdir()) == []
    assert check_identity(settings.output, {"question": "Is there a siren?"})


def test_emptying_an_output_leaves_what_is_not_ours(tmp_path: Path) -> None:
    check_identity(str(tmp_path), {"job": "caption"})
    (tmp_path / "answers" / "format=wav").mkdir(parents=True)
    (tmp_path / "answers" / "format=wav" / "part.parquet").touch()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SettingsError, match="this one is of `mats caption`"):
        empty_output(str(tmp_path), "scan")
    empty_output(str(tmp_path), "caption")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_state", "holiday.jpg"]
    empty_output(str(tmp_path), "scan")  # nothing left: nothing to object to


def test_emptying_refuses_what_no_run_has_made(tmp_path: Path) -> None:
    """A folder `answers` of the user's own, with or without a run beside it."""
    recordings = tmp_path / "answers"
    recordings.mkdir()
    (recordings / "part.parquet").touch()
    with pytest.raises(SettingsError, match="no run has made the `answers` in it"):
        empty_output(str(tmp_path), "caption")
    with pytest.raises(SettingsError, match="or one without `answers` in it"):
        check_identity(str(tmp_path), {"job": "caption"}, "answers")
    check_identity(str(tmp_path), {"job": "caption"}, "embeddings")
    (recordings / "take1.wav").touch()
    with pytest.raises(SettingsError, match=r"move answers/take1\.wav away"):
        empty_output(str(tmp_path), "caption")
    assert sorted(path.name for path in recordings.iterdir()) == ["part.parquet", "take1.wav"]


def test_emptying_that_is_killed_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_identity(str(tmp_path), {"job": "embed-audio"})
    for name in ("_run.json", "_embeddings.json", "embeddings/a.parquet", "_state/work_list/rows.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    removed: list[str] = []
    monkeypatch.setattr("mats_core.storage.remove_tree", lambda uri: removed.append(Path(uri).name))
    empty_output(str(tmp_path), "embed-audio")
    assert removed == ["_run.json", "_embeddings.json", "embeddings", "work_list", "identity.json"]


def test_only_our_own_unfinished_files_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    ours = [
        "_run.json.0123abcd.partial",
        "_state/lease.0123abcd.partial",
        "answers/part-1.parquet.0123abcd.partial",
        "answers/format=wav/growing-000000000003.partial",
    ]
    theirs = ["mine.partial", "film.0123abcd.partial", "below/take.parquet.0123abcd.partial", "answers/x.partial"]
    for name in [*ours, *theirs]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    elsewhere.mkdir()
    (elsewhere / "part-1.parquet.0123abcd.partial").touch()
    (out / "answers" / "link").symlink_to(elsewhere)
    (out / "_state" / "data" / "key.partial").mkdir(parents=True)
    remove_partials(str(out))
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.partial")}
    assert left == {*theirs} and len(list(elsewhere.iterdir())) == 1


def test_a_file_that_is_no_part_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(SettingsError, match=r"output: got .*mine\.parquet.*row_id"):
        read_done(str(tmp_path), 3)
    (tmp_path / "mine.parquet").write_bytes(b"no Parquet")
    with pytest.raises(SettingsError, match=r"output: got .*mine\.parquet"):
        read_done(str(tmp_path), 3)


@pytest.mark.parametrize("task", ["nonsense", "QA"])
def test_overwrite_removes_nothing_when_the_list_asks_what_cannot_be_asked(
    tmp_path: Path, tiny_model_dir: str, task: str
) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.csv").write_text(f"uri,task\na.wav,caption\na.wav,{task}\n")
    out = tmp_path / "out"
    check_identity(str(out), {"job": "caption"})
    (out / "answers").mkdir()
    (out / "answers" / "part.parquet").touch()
    settings = CaptionSettings(
        input=str(tmp_path / "list.csv"), output=str(out), model=tiny_model_dir, overwrite=True, task="caption"
    )
    with pytest.raises(SettingsError, match="nonsense" if task == "nonsense" else "question"):
        run_caption(settings)
    assert (out / "answers" / "part.parquet").exists()


@pytest.mark.processes
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_is_not_where_answers_go(tmp_path: Path, tiny_model_dir: str, overwrite: bool) -> None:
    manifest = tmp_path / "manifest"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    run_scan(ScanSettings(input=str(tmp_path / "in"), output=str(manifest), model=tiny_model_dir))
    settings = CaptionSettings(
        input=str(manifest), output=f"{manifest}/../manifest/", model=tiny_model_dir, overwrite=overwrite
    )
    with pytest.raises(SettingsError, match="another folder than INPUT"):
        run_caption(settings)
    assert list((manifest / "manifest").glob("*.parquet"))


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "", " "):
        with pytest.raises(SettingsError, match="output"):
            prepare_output(place)
