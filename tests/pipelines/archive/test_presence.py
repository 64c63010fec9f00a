"""INPUT that goes away: told apart from files that are missing alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.archive.headers import Scanner
from pipelines.archive.presence import SAMPLE, InputGone, Presence
from pipelines.archive.work_list import WorkList
from pipelines.data.inputs import Entry, open_input
from pipelines.settings.archive import LimitSettings


def noted(folder: Path, count: int) -> Presence:
    """`count` files that are there, and what took note of them."""
    folder.mkdir()
    presence = Presence()
    for index in range(count):
        (folder / str(index)).write_bytes(b"x")
        presence.note(Entry(str(folder / str(index)), str(index), 1, "v"))
    return presence


def rows(folder: Path, *missing: int, count: int = 40) -> pa.Table:
    """Finished rows of the files, `missing` of them not found."""
    codes = ["not_found" if index in missing else None for index in range(count)]
    uris = [str(folder / str(index)) for index in range(count)]
    kinds = {"error_code": pa.array(codes, pa.string()), "format": ["wav"] * count}
    return pa.table({"uri": uris, **kinds})


def test_a_file_that_is_missing_alone_keeps_its_row(tmp_path: Path) -> None:
    presence = noted(tmp_path / "in", 40)
    for index in (3, 5, *range(10, 30)):
        (tmp_path / "in" / str(index)).unlink()
    assert len(presence.rows_to_keep(rows(tmp_path / "in", 3, 5))) == 40


def test_where_all_are_gone_nothing_is_kept_and_what_is_back_is_done_again(tmp_path: Path) -> None:
    presence = noted(tmp_path / "in", 40)
    moved = (tmp_path / "in").rename(tmp_path / "away")
    assert len(presence.rows_to_keep(rows(tmp_path / "in"))) == 40  # decoded before
    with pytest.raises(InputGone, match=r"^input: its files are gone .*in/\d+, and others.; bring them back"):
        presence.rows_to_keep(rows(tmp_path / "in", 7))
    moved.rename(tmp_path / "in")
    (tmp_path / "in" / "8").unlink()
    kept = presence.rows_to_keep(rows(tmp_path / "in", 7, 8))
    assert kept["uri"].to_pylist() == [str(tmp_path / "in" / str(i)) for i in range(40) if i != 7]


def test_what_the_scan_could_not_open_is_no_sign_of_it(tmp_path: Path) -> None:
    presence = Presence()
    presence.note(Entry(str(tmp_path / "link.wav"), "link.wav"))  # a link to nothing
    presence.note(Entry("/gone.wav", "gone.wav", 1, "v", error=("not_found", "gone")))
    presence.check()
    scanned = pa.table({"uri": ["/gone.wav"], "error_code": ["not_found"], "format": pa.nulls(1, pa.string())})
    assert presence.rows_to_keep(scanned) is scanned


def test_the_sample_is_bounded_and_drawn_from_all(tmp_path: Path) -> None:
    presence = Presence()
    for index in range(10_000):
        presence.note(Entry(f"/{index}", str(index), 1, "v"))
    assert len(presence._sample) == SAMPLE
    assert max(int(uri[1:]) for uri in presence._sample) > 5000


@pytest.mark.processes
def test_a_scan_whose_folder_goes_away_keeps_no_row_of_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(600):
        (tmp_path / "in" / f"{index:03d}.wav").write_bytes(b"x")
    source = open_input(str(tmp_path / "in"))
    listed = list(source.entries)

    def leaving():  # type: ignore[no-untyped-def]
        for index, entry in enumerate(listed):
            if index == 400:
                (tmp_path / "in").rename(tmp_path / "away")
            yield entry

    source.entries = leaving()
    work = WorkList(str(tmp_path / "work"), source.own_schema)
    with Scanner(60.0, LimitSettings()) as scanner, pytest.raises(InputGone):
        work.extend(source, scanner, {})
    assert work.total == 0
