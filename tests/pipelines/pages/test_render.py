"""What all pages share: the clock, and whether one can be written."""

from __future__ import annotations

from pathlib import Path

from mats_core import storage
from pipelines.pages.render import at_time, check_page, clock


def test_clock() -> None:
    shown = [clock(s) for s in (None, 0.3, 5, 59.9, 59.96, 75, 3599.7, 4000)]
    assert shown == ["", "0.3 s", "5.0 s", "59.9 s", "1:00", "1:15", "1:00:00", "1:06:40"]


def test_a_place_in_a_recording() -> None:
    assert [at_time(s) for s in (0, 7.9, 59.99, 175, 3599, 4000)] == [
        "0:00",
        "0:07",
        "0:59",
        "2:55",
        "59:59",
        "1:06:40",
    ]


def test_a_look_at_where_the_page_goes_leaves_nothing_there(tmp_path: Path) -> None:
    check_page(str(tmp_path / "new" / "folder" / "page.html"))
    assert not list(tmp_path.iterdir())
    check_page("memory://report/page.html")
    assert not storage.exists("memory://report")
