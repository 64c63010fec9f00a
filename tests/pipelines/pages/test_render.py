"""What all pages share: the clock, and whether one can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.pages.render import HEAD_BYTES, MARK, TEMPLATES, at_time, check_page, clock


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


def test_only_a_page_of_ours_is_replaced(tmp_path: Path) -> None:
    for out in (str(tmp_path / "page.html"), "memory://report/page.html"):
        storage.write_bytes(out, b"<html>mine</html>")
        with pytest.raises(SettingsError, match=r"^page: .*page.html is there, and is no page .*; .* --overwrite"):
            check_page(out, setting="page")
        assert storage.read_bytes(out) == b"<html>mine</html>"
        check_page(out, overwrite=True)
        storage.write_bytes(out, b"<!doctype html>" + MARK.encode())
        check_page(out)
    storage.remove_tree("memory://report")


def test_every_page_has_the_mark_at_its_beginning() -> None:
    pages = list(TEMPLATES.glob("*.html.j2"))
    assert len(pages) == 4
    for path in pages:
        assert '<head>\n<meta charset="utf-8">\n{{ generator | safe }}\n' in path.read_text()[:HEAD_BYTES], path.name
