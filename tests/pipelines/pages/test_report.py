"""The report: right counts, right pictures, and nothing in a name or an answer that could act on the page."""

from __future__ import annotations

import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from mats_core import storage
from mats_core.errors import SettingsError
from pipelines.pages import preview
from pipelines.pages.report import check_page, clock, write_report

RATE = preview.SAMPLE_RATE
HOSTILE = '"><script>alert(1)<script><img src=x onerror=alert(2)>.wav'


def tone(hertz: float, seconds: float, level: float = 0.5) -> np.ndarray:
    """int16 [T] at 16 kHz."""
    return (32767 * level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


class Page(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        """Attributes of the tags of a name, of one class when given."""
        return [a for t, a in self.tags if t == tag and (not kind or kind in (a.get("class") or "").split())]


def row(row_id: int, uri: str, **facts: Any) -> dict[str, Any]:
    base = {
        "row_id": row_id,
        "uri": uri,
        "format": "wav",
        "sample_rate": RATE,
        "channels": 1,
        "start_s": 0.0,
        "duration_s": 1.0,
        "decoded_s": 1.0,
        "task": "caption",
        "question": None,
        "text": "A dog barks.",
        "error_code": None,
        "error_message": None,
    }
    return base | facts


def error(row_id: int, uri: str, code: str, message: str) -> dict[str, Any]:
    empty = dict.fromkeys(("format", "sample_rate", "channels", "duration_s", "decoded_s", "text"))
    return row(row_id, uri, error_code=code, error_message=message, **empty)


def write_run(output: Path, rows: list[dict[str, Any]], run: dict[str, Any] | None = None) -> str:
    folder = output / "answers"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    for part in range(2):  # several part files, rows out of order
        pq.write_table(table.take(pa.array(range(part, len(rows), 2), pa.int64())), folder / f"part-{part}.parquet")
    if run is not None:
        (output / "_run.json").write_text(json.dumps(run))
    return str(output)


def wav(path: Path, samples: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return str(path)


# ---- pictures and previews


def test_a_tone_is_a_line_at_its_height() -> None:
    for hertz in (300.0, 1000.0, 4000.0):
        picture = preview.mel_picture(tone(hertz, 2.0))
        assert picture.shape == (preview.PICTURE_HEIGHT, preview.PICTURE_WIDTH)
        loudest = picture[:, 20:-20].mean(axis=1).argmax()
        from_bottom = 1 - (loudest + 0.5) / preview.PICTURE_HEIGHT
        assert from_bottom == pytest.approx(preview.height_of(hertz), abs=0.02)


def test_time_runs_from_left_to_right_over_the_whole_width() -> None:
    quiet = np.zeros(3 * RATE, np.int16)
    for share in (0.25, 0.5, 0.75):
        clicked = quiet.copy()
        at = int(share * len(quiet))
        clicked[at : at + 200] = 20000
        column = preview.mel_picture(clicked).mean(axis=0).argmax()
        assert column / preview.PICTURE_WIDTH == pytest.approx(share, abs=0.02)


def test_silence_is_dark_and_one_sample_is_enough() -> None:
    assert preview.mel_picture(np.zeros(RATE, np.int16)).max() == 0
    assert preview.mel_picture(np.zeros(1, np.int16)).max() == 0


def test_picture_is_small_webp() -> None:
    noise = np.random.default_rng(0).normal(0, 3000, 5 * RATE).astype(np.int16)
    data = preview.spectrogram_webp(noise)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", (preview.PICTURE_WIDTH, preview.PICTURE_HEIGHT))
    assert len(data) < 30_000


def test_preview_is_the_first_seconds_at_about_32_kbit_a_second() -> None:
    samples = np.concatenate([tone(500, 4.0), tone(3000, 4.0)])
    data = preview.preview_mp3(samples, 4.0)
    heard, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    assert heard.ndim == 1
    assert len(heard) / rate == pytest.approx(4.0, abs=0.15)
    assert len(data) * 8 / 4.0 == pytest.approx(32_000, rel=0.1)
    middle = heard[RATE : 3 * RATE]
    assert np.abs(np.fft.rfft(middle)).argmax() / 2 == pytest.approx(500, abs=2)


def test_clock() -> None:
    shown = [clock(s) for s in (None, 0.3, 5, 59.9, 59.96, 75, 3599.7, 4000)]
    assert shown == ["", "0.3 s", "5.0 s", "59.9 s", "1:00", "1:15", "1:00:00", "1:06:40"]


# ---- the page


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
def test_labels_right_missed_and_wrong(tmp_path: Path) -> None:
    uri = str(tmp_path / "in" / "a b.wav")
    truth = [
        {"path": "a b.wav", "caption": "Rain, then a siren.", "labels": ["rain", "siren"], "minutes": []},
        {"path": "b.wav", "caption": "not this one", "labels": ["cat"], "minutes": []},
    ]
    output = write_run(tmp_path / "out", [row(0, uri, text="A dog barks while rain falls.")])
    result = write_report(output, str(tmp_path / "r.html"), truth)
    assert result.files[0]["parts"][0]["labels"] == [("rain", "right"), ("siren", "missed"), ("dog", "wrong")]
    scores = result.totals.scores
    assert (scores.right, scores.missed, scores.wrong, scores.f1) == (1, 1, 1, 0.5)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [len(page.all("li", kind)) for kind in ("right", "missed", "wrong")] == [1, 1, 1]
    assert "Rain, then a siren." in page.text


@pytest.mark.processes
def test_each_minute_of_a_scene_has_its_own_truth(tmp_path: Path) -> None:
    uri = str(tmp_path / "scene.wav")
    minutes = [
        {"start_s": 0.0, "end_s": 60.0, "caption": "Rain.", "labels": ["rain"]},
        {"start_s": 60.0, "end_s": 120.0, "caption": "A cat.", "labels": ["cat"]},
    ]
    truth = tmp_path / "truth.jsonl"
    whole = {"path": "scene.wav", "caption": "A scene.", "labels": ["rain", "cat"], "minutes": minutes}
    truth.write_text(json.dumps(whole) + "\n")
    rows = [
        row(1, uri, start_s=60.0, duration_s=60.0, decoded_s=60.0, text="A cat meows."),
        row(0, uri, duration_s=60.0, decoded_s=60.0, text="A cat meows."),
    ]
    result = write_report(write_run(tmp_path / "out", rows), str(tmp_path / "r.html"), str(truth))
    first, second = result.files[0]["parts"]
    assert first["labels"] == [("rain", "missed"), ("cat", "wrong")]
    assert (second["start_s"], second["truth"], second["labels"]) == (60.0, "A cat.", [("cat", "right")])


@pytest.mark.processes
def test_a_name_that_is_not_utf8_finds_its_file_and_its_truth(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "in")
    os.makedirs(folder)
    with open(os.path.join(folder, b"Ger\xe4usch.wav"), "wb") as file:
        soundfile.write(file, tone(440, 1.0), RATE, format="WAV")
    uri = f"file://{tmp_path}/in/Ger%E4usch.wav"
    truth = [{"path": "Ger%E4usch.wav", "caption": "A dog.", "labels": ["dog"], "minutes": []}]
    rows = [row(0, uri), row(1, str(tmp_path / "in" / "b.wav"))]
    result = write_report(write_run(tmp_path / "out", rows), str(tmp_path / "r.html"), truth)
    first, second = result.files
    assert (first["name"], second["name"]) == ("Ger%E4usch.wav", "b.wav")
    assert first["parts"][0]["labels"] == [("dog", "right")]
    assert result.previews == 1, "the second file is not there and is shown without picture"


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
        assert str(refused.value).startswith(f'out: got "{out}"; allowed: a file that can be written; {why}'), out
    storage.remove_tree("memory://report")


def test_a_look_at_where_the_page_goes_leaves_nothing_there(tmp_path: Path) -> None:
    check_page(str(tmp_path / "new" / "folder" / "page.html"))
    assert not list(tmp_path.iterdir())
    check_page("memory://report/page.html")
    assert not storage.exists("memory://report")


@pytest.mark.usefixtures("undecoded")
def test_a_wrong_line_of_the_truth_is_told(tmp_path: Path) -> None:
    output = write_run(tmp_path / "out", [row(0, "one.wav")])
    truth = tmp_path / "truth.jsonl"
    good = {"path": "two.wav", "caption": None, "labels": [], "minutes": []}
    for line, wrong in (
        ('{"path": "one.wav", "labels": []}', "line 3, minutes: Field required"),
        ('{"labels": [], "minutes": []}', "line 3, path: Field required"),
        ('{"path": "one.wav", "minutes": []}', "line 3, labels: Field required"),
        ('{"path": "a", "labels": [], "minutes": [{"end_s": 1, "labels": []}]}', "line 3, minutes, 0, start_s: Field"),
        ("not json", "line 3: Invalid JSON: expected ident)"),
        ("[1]", "line 3: Input should be an object"),
    ):
        truth.write_text(f"{json.dumps(good)}\n\n{line}\n")
        with pytest.raises(SettingsError) as refused:
            write_report(output, str(tmp_path / "r.html"), str(truth))
        assert str(refused.value).startswith(f'truth: got "{truth}"; allowed: the truth.jsonl of an archive ({wrong}')
    with pytest.raises(SettingsError, match=r"truth\.minutes: got .nothing"):
        write_report(output, str(tmp_path / "r.html"), [{"path": "one.wav", "labels": []}])
