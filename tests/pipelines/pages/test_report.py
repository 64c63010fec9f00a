"""The report: right counts, right pictures, and nothing in a name or an answer that could act on the page."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.compact import run_compact
from pipelines.data import parquet
from pipelines.output.corrections import Corrections, read_corrections
from pipelines.pages.answers import Answers
from pipelines.pages.report import write_report
from pipelines.settings.compact import CompactSettings
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
    sources = [a[k] or "" for _, a in page.tags for k in ("src", "data", "poster") if k in a]
    assert len(sources) == 2, "one picture and one sound"
    assert all(source.startswith("data:") for source in sources)
    links = [a["href"] or "" for a in page.all("a")]
    assert [unquote(link) for link in links] == [f"in/{HOSTILE}", "in/gone.wav"], "only what was clicked is opened"
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
    assert len(few[0].files) == 4 + 3, "what failed is no part of the sample"
    assert few[0].totals == result.totals
    text = (tmp_path / "few.html").read_text(encoding="utf-8")
    assert "have all 9 files" in text
    assert [each["n"].rpartition("/")[2] for each in everything(text)] == sorted(
        {Path(each["uri"]).name for each in result.files} - {Path(each["uri"]).name for each in few[0].files}
    ), "the search has the others"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"status": "interrupted", "rows": 5}, "2 of 5 answers done; the run is interrupted"),
        ({"status": "running", "rows": 5}, "2 of 5 answers done; the run is still running, or was ended from outside"),
        ({"status": "incomplete", "rows": 2000}, "2 of 2,000 answers done; the run is incomplete"),
        ({"status": "interrupted", "rows": 5, "pruned": [[3, 4]]}, "2 of 3 answers done; the run is interrupted"),
        ({"status": "failed"}, "2 done so far; the run is failed"),
        ({"status": "complete", "rows": 5}, ""),
        ({}, ""),
    ],
)
def test_a_run_that_has_not_come_to_its_end_is_told_from_one_that_has(
    tmp_path: Path, told: dict[str, Any], said: str
) -> None:
    rows = [error(i, str(tmp_path / f"{i}.wav"), "not_audio", "is text") for i in range(2)]
    output = write_run(tmp_path / "out", rows, {"job": "caption", "settings": {"input": "in"}, **told})
    for asked in (output, f"{output}/answers"):
        done = CliRunner().invoke(app, ["report", asked, "--out", str(tmp_path / "page.html")])
        assert done.exit_code == 0, done.output
        page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
        if said:
            told_how = f"not all answers are here: {said}. To go on: `mats caption in {output}`"
            told_how += ", with the settings as before"
            assert done.stderr.strip() == f"mats: {told_how}"
            assert f"N{told_how[1:]}." in page.text
        else:
            assert not done.stderr and "Not all answers" not in page.text


def everything(text: str) -> list[dict[str, Any]]:
    """The files that a page holds packed."""
    packed = re.search(r'id="everything">([^<]*)<', text)
    lines = gzip.decompress(base64.b64decode(packed[1])).splitlines() if packed else []
    return [json.loads(line) for line in lines]


@pytest.mark.processes
def test_more_files_go_onto_further_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.pages.report.FILES", 2)
    monkeypatch.setattr("pipelines.pages.report.PARTS_A_PAGE", 2)
    rows = [row(i, wav(tmp_path / "in" / f"{i}.wav", tone(300, 0.2)), text=f"answer {i}") for i in range(5)]
    rows.append(error(5, str(tmp_path / "in" / "5.wav"), "not_audio", "is text"))
    output = write_run(tmp_path / "out", rows)
    result = write_report(output, str(tmp_path / "r.html"), max_files=None)
    assert (result.pages, result.previews) == (3, 5)
    pages = [tmp_path / "r.html", tmp_path / "r-pages" / "2.html", tmp_path / "r-pages" / "3.html"]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert result.size_bytes == sum(page.stat().st_size for page in pages)
    assert [len(Page(text).all("article")) for text in texts] == [2, 2, 2]
    for page, text in zip(pages, texts, strict=True):
        links = [a["href"] or "" for a in Page(text).all("a")]
        assert links
        for link in links:
            assert (page.parent / unquote(link)).resolve() == tmp_path / "in" / "5.wav" or (
                page.parent / unquote(link)
            ).is_file(), link
    assert [(each["n"], each["c"]) for each in everything(texts[0])] == [
        (f"{i}.wav", f"r-pages/{2 + (i > 3)}.html#f{i}") for i in range(2, 6)
    ]
    assert all(f'id="f{i}"' in texts[i // 2] for i in range(6))
    assert write_report(output, str(tmp_path / "r.html"), max_files=2).pages == 1
    assert not list((tmp_path / "r-pages").iterdir()), "pages of the earlier report are gone"


@pytest.mark.processes
def test_a_minute_is_heard_whole_from_any_segment_and_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    segments = [{"start_s": 60.0 + 7 * i, "end_s": 67.0 + 7 * i, "text": f"part {i}"} for i in range(8)]
    uri = wav(tmp_path / "in" / "long.wav", tone(300, 120.0))
    rows = [
        row(0, uri, start_s=60.0, duration_s=60.0, decoded_s=60.0, segments=segments),
        row(1, str(tmp_path / "in" / "gone.wav"), segments=segments),
        row(2, "http://127.0.0.1:9/gone.wav?secret=1"),
    ]
    result = write_report(write_run(tmp_path / "out", rows), str(tmp_path / "r.html"))
    assert result.files[0]["parts"][0]["heard_share"] == 1.0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [a["data-at"] for a in page.all("button", "there")] == [f"{7 * i:.2f}" for i in range(8)]
    assert "1:49 – 1:56" in page.text
    assert result.totals.gone == 1
    assert page.text.count("The file is gone since it was answered.") == 1
    assert "Can be read no more" in page.text, "a store that does not answer"
    assert "secret" not in text


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


def test_a_run_that_was_compacted_into_folders_is_shown_with_their_column(tmp_path: Path) -> None:
    rows = [row(0, "/in/a.wav", task="QA", question="Rain?"), row(1, "/in/b.wav")]
    run = write_run(tmp_path / "run", rows, {"job": "caption", "status": "complete"})
    run_compact(CompactSettings(input=run, output=str(tmp_path / "few"), partition_by="task"))
    assert len(list((tmp_path / "few" / "answers").iterdir())) == 2
    Corrections(str(tmp_path / "few")).correct(rows[0], 0, "Ann", {"text": "Never."})
    shown = Answers(str(tmp_path / "few" / "answers"), said=read_corrections(str(tmp_path / "few")))
    (first, second) = (each["parts"][0] for each in shown.files(shown.uris))
    assert (first["task"], first["text"], second["task"]) == ("QA", "Never.", "caption")


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="answers"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))
    output = write_run(tmp_path / "out", [row(0, "a.wav")])
    (tmp_path / "truth.jsonl").write_text("not json")
    with pytest.raises(SettingsError, match="truth"):
        write_report(output, str(tmp_path / "r.html"), str(tmp_path / "truth.jsonl"))


def test_a_page_is_replaced_where_it_is_of_mats(tmp_path: Path) -> None:
    output, page = write_run(tmp_path / "out", [error(0, "a.wav", "not_found", "gone")]), tmp_path / "r.html"
    page.write_text("my letters")
    with pytest.raises(SettingsError, match=r"^out: .*r.html is there, and is no page that MATS has written"):
        write_report(output, page)
    assert page.read_text() == "my letters"
    write_report(output, page, overwrite=True)
    assert "my letters" not in page.read_text()
    page.write_text(page.read_text() + "an older page")
    write_report(output, page)
    assert "an older page" not in page.read_text()


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_of_which_nothing_is_finished_is_said_to_be_so(tmp_path: Path, status: str) -> None:
    """What it has are other tables: its work list, what was said of the answers before."""
    parquet.write(str(tmp_path / "out" / "_state" / "work_list" / "rows.parquet"), pa.table({"uri": ["a.wav"] * 120}))
    parquet.write(str(tmp_path / "out" / "corrections" / "rows.parquet"), pa.table({"uri": ["a.wav"] * 120}))
    run = {"job": "caption", "status": status, "settings": {"input": "in/"}}
    (tmp_path / "out" / "_run.json").write_text(json.dumps(run))
    told = f"out is {status}, and none of its answers is finished yet; let it go on: `mats caption in/ {tmp_path}/out`"
    with pytest.raises(SettingsError, match=re.escape(told)):
        write_report(tmp_path / "out", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


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


@pytest.mark.processes
def test_what_was_put_right_is_shown_with_what_the_model_said(tmp_path: Path) -> None:
    rows = [row(at, wav(tmp_path / "in" / f"{at}.wav", tone(300, 1.0))) for at in range(3)]
    run = write_run(tmp_path / "out", rows)
    said = Corrections(run)
    said.correct(rows[0], 0, "<b>Ann</b>", {"text": "A cat purrs."})
    said.correct(rows[1], 0, "Bob", {"mark": "right", "labels": ["dog"]})
    write_report(run, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "A cat purrs." in page.text and "corrected by <b>Ann</b>; the model said: A dog barks." in page.text
    assert "marked right by Bob; labels dog" in page.text and page.text.count(" by ") == 2
