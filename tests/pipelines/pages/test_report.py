"""The report: right counts, right pictures, and nothing in a name or an answer that could act on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.pages.report import write_report
from tests.pipelines.pages.made_up import Page, error, row, tone, wav, write_run

HOSTILE = '"><script>alert(1)<script><img src=x onerror=alert(2)>.wav'


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str]:
    root = tmp_path_factory.mktemp("hostile")
    good = wav(root / "in" / HOSTILE, tone(440, 1.0))
    rows = [
        row(0, good, text="</p><script>alert(3)</script>{{ 7 * 6 }}", question="<marquee>what</marquee>", task="QA"),
        error(1, str(root / "in" / "gone.wav"), "not_found", "<img src=//example.org/x onerror=alert(4)>"),
    ]
    run = {"settings": {"input": "<i>in</i>", "model": "'\"><script>"}, "versions": {"<u>": "1"}}
    out = root / "report.html"
    write_report(write_run(root / "out", rows, run), str(out), title="<script>title</script>")
    text = out.read_text(encoding="utf-8")
    return Page(text), text


@pytest.mark.processes
def test_hostile_names_and_answers_stay_text(hostile_page: tuple[Page, str]) -> None:
    page, _ = hostile_page
    assert len(page.all("script")) == 1, "our own, and no other"
    assert not page.all("marquee")
    assert not page.all("i") or all(a == {} for a in page.all("i")), "only playheads"
    assert not page.all("u")
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert HOSTILE in page.text
    assert "</p><script>alert(3)</script>{{ 7 * 6 }}" in page.text
    assert "<img src=//example.org/x onerror=alert(4)>" in page.text


@pytest.mark.processes
def test_the_page_needs_nothing_from_outside(hostile_page: tuple[Page, str]) -> None:
    page, text = hostile_page
    sources = [a[k] or "" for _, a in page.tags for k in ("src", "href", "data", "poster") if k in a]
    assert len(sources) == 2, "one picture and one sound"
    assert all(source.startswith("data:") for source in sources)
    assert not page.all("link")
    assert not page.all("iframe")
    assert "@import" not in text
    assert "url(" not in text
    policy = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert (policy[0] or "").startswith("default-src 'none'")


@pytest.mark.processes
def test_counts_errors_and_sample(tmp_path: Path) -> None:
    rows = [row(i, str(tmp_path / f"{i}.wav"), decoded_s=2.0) for i in range(6)]
    rows += [error(6, str(tmp_path / "a.wav"), "not_audio", "is text"), error(7, "x.wav", "not_audio", "is text")]
    rows += [error(8, str(tmp_path / "b.wav"), "empty_audio", "0 bytes")]
    output = write_run(tmp_path / "out", rows, {"rows_per_s": 4.25, "wall_s": 6.0, "start_s": 2.0})
    result = write_report(output, str(tmp_path / "all.html"))
    assert (result.totals.rows, result.totals.files, result.totals.seconds) == (9, 9, 12.0)
    assert dict(result.totals.errors) == {"not_audio": 2, "empty_audio": 1}
    page = Page((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert len(page.all("article")) == 9
    assert [a["data-code"] for a in page.all("button") if "data-code" in a] == ["not_audio", "empty_audio"]
    assert "2 × real time" in page.text, "12 s heard in 6 s"

    few = [write_report(output, str(tmp_path / name), max_files=4) for name in ("few.html", "again.html")]
    assert [f["uri"] for f in few[0].files] == [f["uri"] for f in few[1].files]
    assert len(few[0].files) == 4
    assert few[0].totals == result.totals
    assert "4 of 9 files are shown" in (tmp_path / "few.html").read_text(encoding="utf-8")


@pytest.mark.processes
def test_a_full_page_shows_answers_without_pictures(tmp_path: Path) -> None:
    rows = [row(i, wav(tmp_path / "in" / f"{i}.wav", tone(300 * (i + 1), 1.0)), text=f"answer {i}") for i in range(3)]
    output = write_run(tmp_path / "out", rows)
    whole = write_report(output, str(tmp_path / "whole.html"))
    assert whole.previews == 3
    assert whole.size_bytes == (tmp_path / "whole.html").stat().st_size
    bare = write_report(output, str(tmp_path / "bare.html"), max_media_bytes=0)
    page = Page((tmp_path / "bare.html").read_text(encoding="utf-8"))
    assert bare.previews == 0
    assert not page.all("img")
    assert all(f"answer {i}" in page.text for i in range(3))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="answers"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))
    output = write_run(tmp_path / "out", [row(0, "a.wav")])
    (tmp_path / "truth.jsonl").write_text("not json")
    with pytest.raises(SettingsError, match="truth"):
        write_report(output, str(tmp_path / "r.html"), str(tmp_path / "truth.jsonl"))


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError("sounds were decoded")

    monkeypatch.setattr("pipelines.pages.report.add_media", decode)


@pytest.mark.usefixtures("undecoded")
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", [row(0, wav(tmp_path / "in" / "a.wav", tone(440, 1.0)))])
    storage.write_bytes("memory://report/folder/page.html", b"")
    (tmp_path / "file").touch()
    for out, why in (
        (str(tmp_path), "this is a folder"),
        (f"file://{tmp_path}", "this is a folder"),
        ("memory://report/folder", "this is a folder"),
        (str(tmp_path / "file" / "page.html"), f"none can be made in {tmp_path}/file"),
        ("/proc/page.html", "none can be made in /proc"),
        ("/dev/null", "this is a folder or a device"),
        ("https://localhost/page.html", "https:// is read-only"),
        ("nosuch://place/page.html", "refused: "),
    ):
        with pytest.raises(SettingsError) as refused:
            write_report(output, out)
        assert str(refused.value).startswith(f"out: no page can be written to {out}: {why}"), out
    storage.remove_tree("memory://report")
