"""The application over a made-up run: pages, API, sounds; with hostile names and two who write."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from mats_core.errors import SettingsError
from pipelines.output.corrections import corrected_records
from pipelines.pages.render import TEMPLATES
from pipelines.serve.api import State
from pipelines.serve.app import STATIC, make_app
from tests.pipelines.pages.made_up import RATE, Page, row, tone, write_run
from tests.pipelines.serve.made_up import HOSTILE, Echo, made_state

pytestmark = pytest.mark.processes


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    found = made_state(tmp_path, upload=(1_000_000, 25.0))
    yield found
    found.sounds.close()


def client(state: State, **given: Any) -> TestClient:
    return TestClient(make_app(state, **given), base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_the_first_page_shows_rows_as_text_whatever_they_hold(state: State, tmp_path: Path) -> None:
    answer = client(state).get("/")
    page = Page(answer.text)
    assert answer.status_code == 200
    assert "<script>alert(1)</script>" in page.text and "A high <i>tone</i>." in page.text
    scripts = page.all("script")
    assert [each.get("src") for each in scripts] == ["/static/serve.js"], "no script but ours, none inline"
    assert not page.all("style") and not [a for _, a in page.tags if "style" in a or any(k.startswith("on") for k in a)]
    assert str(tmp_path) not in answer.text, "no path of this machine"
    assert [each["data-row"] for each in page.all("article")] == ["0", "1", "2", "3"]
    assert "0.80 sure" in page.text and "not_found" in page.text and "4 answers" in page.text


def test_every_place_of_a_page_is_ours(state: State) -> None:
    """What a page loads or leads to lies on this server; what is not there is told by 404."""
    asked = client(state)
    for path in ("/", "/demo", "/api"):
        page = Page(asked.get(path).text)
        places = [a.get(k) for _, a in page.tags for k in ("src", "href", "action") if a.get(k)]
        assert places and all(str(place).startswith(("/", "#")) and not str(place).startswith("//") for place in places)
    for name, (folder, kind) in STATIC.items():
        answer = asked.get(f"/static/{name}")
        assert answer.content == (folder / name).read_bytes() and answer.headers["content-type"].startswith(kind)
    for name in ("report.js", "..%2fcard.j2", "%2e%2e/serve.css", "/etc/passwd"):
        assert asked.get(f"/static/{name}").status_code == 404
    assert (TEMPLATES / "look.css").is_file()


def test_a_search_in_the_address_shows_its_rows_and_stays_in_the_form(state: State) -> None:
    page = Page(client(state).get("/", params={"q": "low", "low": "0.5"}).text)
    assert [each["data-row"] for each in page.all("article")] == ["0"]
    fields = {a.get("name"): a.get("value") for a in page.all("input")}
    assert fields["q"] == "low" and fields["low"] == "0.5"
    empty = {"q": "", "run": "", "low": "", "high": "", "name": "", "said": "", "task": ""}
    assert len(Page(client(state).get("/", params=empty).text).all("article")) == 4, (
        "as a form without scripts sends it"
    )
    for wrong in ({"by": "magic"}, {"unknown": "1"}, {"low": "x"}):
        assert client(state).get("/", params=wrong).status_code == 422
    sound = client(state).get("/", params={"q": "x", "by": "sound"})
    assert sound.status_code == 200 and "no run that is asked has embeddings" in sound.text


def test_a_row_is_told_with_all_that_is_known_and_no_path(state: State, tmp_path: Path) -> None:
    asked = client(state)
    found = asked.get("/api/rows", params={"q": "tone"}).json()
    assert (found["total"], found["next"], [each["row_id"] for each in found["rows"]]) == (2, "", [0, 1])
    assert found["rows"][1]["name"] == HOSTILE
    whole = asked.get("/api/rows/0/0").json()
    assert whole["segments"][1]["text"] == "more" and whole["neighbors"][0]["caption"] == "A <b>tone</b>."
    assert whole["history"] == [] and whole["version"] == 0 and "uri" not in whole
    gone = asked.get("/api/rows/0/3").text
    assert str(tmp_path) not in gone and "there is no …" in gone
    details = asked.get("/clip/0/0").text
    assert "A &lt;b&gt;tone&lt;/b&gt;." in details and 'data-at="1.0"' in details
    for path in ("/api/rows/0/99", "/api/rows/1/0", "/api/rows/-1/0", f"/api/rows/0/{10**30}", "/clip/0/77"):
        assert asked.get(path).status_code == 404, path
    assert asked.get("/api/rows/0/etc").status_code == 422
    assert asked.get("/api/runs").json()[0]["values"]["task"] == {"caption": 3, "QA": 1}


def test_of_a_corrected_row_the_segments_are_told_as_the_models(state: State) -> None:
    asked = client(state)
    before = asked.get("/api/rows/0/0").json()
    assert before["segments"] == before["answer_segments"]
    now = asked.post("/api/rows/0/0/correct", json={"seen": 0, "by": "Ann", "text": "A hum."}).json()
    for told in (now, asked.get("/api/rows/0/0").json()):
        assert (told["text"], told["segments"]) == ("A hum.", None)
        assert (told["answer"], told["answer_segments"]) == (before["text"], before["segments"])
    details = Page(asked.get("/clip/0/0").text).text
    assert 0 <= details.index("The model said:") < details.index("Its segments") < details.index("a low tone")
    asked.post("/api/rows/0/0/correct", json={"seen": 1, "by": "Ann", "text": None, "mark": "right"})
    assert asked.get("/api/rows/0/0").json()["segments"] == before["segments"], "a mark is no other text"
    assert "The model said:" not in asked.get("/clip/0/0").text


def test_sounds_come_by_row_and_by_range(state: State) -> None:
    asked = client(state)
    whole = asked.get("/audio/0/0.wav")
    assert whole.status_code == 200 and whole.headers["content-type"] == "audio/wav"
    data, rate = soundfile.read(io.BytesIO(whole.content), dtype="int16")
    assert rate == RATE and np.array_equal(data, tone(220, 2))
    part = asked.get("/audio/0/0.wav", headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole.content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert asked.get("/audio/0/0.wav", headers={"range": "bytes=-50"}).content == whole.content[-50:]
    beyond = asked.get("/audio/0/0.wav", headers={"range": "bytes=9999999-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{len(whole.content)}"
    picture = asked.get("/picture/0/1.webp")
    assert picture.headers["content-type"] == "image/webp" and picture.content[8:12] == b"WEBP"


def test_a_file_is_handed_out_as_it_is_where_it_is_sound(state: State, tmp_path: Path) -> None:
    asked = client(state)
    uri = str(tmp_path / "in" / "a" / "low.wav")
    whole = asked.get("/file/0/0")
    assert whole.content == Path(uri).read_bytes() and whole.headers["content-type"] == "audio/wav"
    assert asked.get("/file/0/0", headers={"range": "bytes=4-9"}).content == whole.content[4:10]
    hostile = asked.get("/file/0/1").headers["content-disposition"]
    assert (
        "\n" not in hostile and "script>" not in hostile.replace("%3E", "") and hostile.startswith("inline; filename*=")
    )
    (tmp_path / "in" / "b.wav").write_text("-----BEGIN PRIVATE KEY-----" * 99)
    for path in ("/file/0/2", "/audio/0/2.wav", "/picture/0/2.webp"):
        refused = asked.get(path)
        assert refused.status_code == 422 and "PRIVATE" not in refused.text and str(tmp_path) not in refused.text
    gone = asked.get("/audio/0/3.wav")
    assert gone.status_code == 404 and gone.json()["code"] == "not_found" and str(tmp_path) not in gone.text


def test_what_is_said_is_kept_beside_the_run_and_undone(state: State, tmp_path: Path) -> None:
    asked = client(state)
    said = {"seen": 0, "by": "Ann", "text": "A hum.", "labels": ["hum"], "mark": "wrong"}
    now = asked.post("/api/rows/0/0/correct", json=said).json()
    assert (now["text"], now["answer"], now["version"]) == ("A hum.", "A low tone.", 1)
    assert now["correction"]["labels"] == ["hum"] and now["correction"]["by"] == "Ann"
    assert now["confidence"] is None, "that was of the model's own words"
    page = Page(asked.get("/").text)
    assert "A hum." in page.text and "corrected by Ann" in page.text and "✗ wrong" in page.text
    assert "0.80 sure" not in page.text and "0.20 sure" in page.text
    assert [each["row_id"] for each in asked.get("/api/rows", params={"q": "hum"}).json()["rows"]] == [0]
    assert asked.get("/api/rows", params={"said": "wrong"}).json()["total"] == 1
    assert (tmp_path / "run" / "corrections" / "000000000000-000001.parquet").is_file()
    back = asked.post("/api/rows/0/0/undo", json={"seen": 1, "by": "Bob"}).json()
    assert back["text"] == "A low tone." and back["correction"] is None and back["version"] == 2
    assert back["confidence"] == 0.8
    assert [each["action"] for each in asked.get("/api/rows/0/0").json()["history"]] == ["correct", "undo"]
    assert asked.post("/api/rows/0/0/undo", json={"seen": 2, "by": "Bob"}).status_code == 422


def test_of_two_servers_over_a_run_the_second_to_write_is_told(state: State, tmp_path: Path) -> None:
    other = made_state(tmp_path)
    one, two = client(state), client(other)
    assert two.get("/api/rows", params={"said": "right"}).json()["total"] == 0
    said = {"seen": 0, "by": "Ann", "mark": "right", "labels": ["rain"]}
    assert one.post("/api/rows/0/0/correct", json=said).status_code == 200
    late = two.post("/api/rows/0/0/correct", json={"seen": 0, "by": "Bob", "text": "Mine."})
    assert late.status_code == 409
    now = late.json()["detail"]
    assert now["version"] == 1 and now["correction"]["by"] == "Ann" and now["correction"]["mark"] == "right"
    assert two.get("/api/rows", params={"said": "right"}).json()["total"] == 1, "and it is found from now on"
    again = two.post("/api/rows/0/0/correct", json={"seen": 1, "by": "Bob", "text": "Mine."}).json()
    assert (again["text"], again["correction"]["labels"]) == ("Mine.", ["rain"]), "what is not said stays"
    assert again["correction"]["mark"] is None, "but nobody called Bob's text right"
    assert one.post("/api/rows/0/0/undo", json={"seen": 1, "by": "Ann"}).status_code == 409
    other.sounds.close()


@pytest.mark.parametrize(
    "wrong",
    [{"seen": 0, "by": "A"}, {"seen": 0, "by": "", "mark": "right"}, {"by": "A", "mark": "right"},
     {"seen": 0, "by": "A", "mark": "x"}, {"seen": -1, "by": "A", "mark": "right"}, {"seen": 0, "by": "A", "uri": "/x"},
     {"seen": 0, "by": "A", "text": 3}],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(state: State, tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert client(state).post("/api/rows/0/0/correct", json=wrong).status_code == 422
    assert not (tmp_path / "run" / "corrections").exists()


def test_questions_are_about_the_rows_own_stretch(state: State) -> None:
    asked = client(state)
    told = asked.post("/api/rows/0/0/ask", json={"question": "Is it low?"}).json()
    assert (
        told["text"] == "QA: Is it low?, 2.0 s" and told["neighbors"][0]["weight"] == 0.5 and told["confidence"] == 0.25
    )
    part = asked.post("/api/rows/0/0/ask", json={"task": "caption", "start_s": 0.5, "end_s": 1.0}).json()
    assert part["text"] == "caption: -, 0.5 s" and (part["start_s"], part["end_s"]) == (0.5, 1.0)
    for wrong in (
        {"task": "QA"},
        {"task": "poem"},
        {"question": "x" * 1001},
        {"start_s": 5},
        {"start_s": 1, "end_s": 1},
    ):
        assert asked.post("/api/rows/0/0/ask", json=wrong).status_code == 422, wrong
    assert asked.post("/api/rows/0/3/ask", json={"question": "?"}).status_code == 404
    state.answerer.busy = True  # type: ignore[union-attr]
    assert asked.post("/api/rows/0/0/ask", json={"question": "Is it?"}).status_code == 503


def test_a_row_of_an_hour_is_heard_and_asked_as_far_as_it_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--per file: two minutes of it, of the channel that the row is of, and no button leads beyond."""
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    samples = np.stack([np.zeros(130 * RATE, np.int16), tone(300, 130)], axis=1)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "long.wav", samples, RATE, subtype="PCM_16")
    segments = [{"start_s": at, "end_s": at + 5, "text": f"at {at}"} for at in (115.0, 120.0, 125.0)]
    facts = {"duration_s": 130.0, "decoded_s": 130.0, "channels": 2, "only_channel": 1, "segments": segments}
    write_run(tmp_path / "run", [row(0, str(tmp_path / "in" / "long.wav"), **facts), row(1, "/in/short.wav")])
    echo = Echo()
    long = made_state(tmp_path, answerer=echo)
    asked = client(long)
    data, _ = soundfile.read(io.BytesIO(asked.get("/audio/0/0.wav").content), dtype="int16")
    assert np.array_equal(data, samples[: 120 * RATE, 1])
    page = Page(asked.get("/").text)
    assert page.text.count("heard here: 0:00 – 2:00") == 1
    assert max(float(each["data-left"] or 0) for each in page.all("span") if "data-left" in each) < 100
    assert [a["data-at"] for a in Page(asked.get("/clip/0/0").text).all("button")] == ["115.0"]
    assert "at 125" in asked.get("/clip/0/0").text
    told = asked.post("/api/rows/0/0/ask", json={}).json()
    assert (told["start_s"], told["end_s"], len(echo.asked[0].samples)) == (0.0, 120.0, 120 * RATE)
    assert np.abs(echo.asked[0].samples.astype(int)).mean() > 5000, "the other channel is silent"
    part = asked.post("/api/rows/0/0/ask", json={"start_s": 125}).json()
    assert (part["start_s"], part["end_s"]) == (125.0, 130.0), "a program may ask of what lies behind"
    long.sounds.close()


def test_where_no_model_is_nothing_is_asked(state: State) -> None:
    state.answerer, state.silent_why = None, "the model of the run is not here"
    asked = client(state)
    answer = asked.post("/api/rows/0/0/ask", json={"question": "Is it?"})
    assert answer.status_code == 503 and "not here" in answer.text
    assert 'data-do="ask"' not in asked.get("/").text
    state.answerer = Echo()
    state.answerer.ready = Future()
    state.answerer.ready.set_exception(SettingsError("model", "it is damaged", "load another"))
    refused = asked.post("/api/rows/0/0/ask", json={"question": "?"})
    assert refused.status_code == 503 and "cannot be loaded: it is damaged" in refused.text


def test_a_dropped_sound_is_answered_and_not_kept(
    state: State, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    asked = client(state)
    kind = {"content-type": "application/octet-stream"}
    file = io.BytesIO()
    soundfile.write(file, tone(300, 12), RATE, format="AIFF", subtype="PCM_16")
    told = asked.post("/api/demo", params={"ending": "aiff"}, content=file.getvalue(), headers=kind).json()
    assert [each["text"] for each in told["answers"]] == ["caption: -, 10.0 s", "caption: -, 2.0 s"]
    assert told["heard_s"] == pytest.approx(12) and told["complete"] and told["picture"]
    question = asked.post(
        "/api/demo", params={"task": "QA", "question": "Rain?"}, content=file.getvalue(), headers=kind
    )
    assert question.json()["answers"][0]["text"] == "QA: Rain?, 10.0 s"
    file = io.BytesIO()
    soundfile.write(file, tone(300, 29), RATE, format="WAV", subtype="PCM_16")
    long = asked.post("/api/demo", content=file.getvalue(), headers=kind).json()
    assert long["heard_s"] == pytest.approx(25) and not long["complete"] and len(long["answers"]) == 3
    for wrong, status in ((b"no sound", 422), (b"", 422), (b"x" * 1_000_001, 413)):
        answer = asked.post("/api/demo", content=wrong, headers=kind)
        assert answer.status_code == status and str(place) not in answer.text
    assert list(place.iterdir()) == []
    assert (
        asked.post("/api/demo", params={"ending": "../../x"}, content=file.getvalue(), headers=kind).status_code == 200
    )


def test_the_demo_is_there_where_it_was_asked_for(state: State) -> None:
    assert client(state).get("/demo").status_code == 200
    state.upload = None
    assert client(state).get("/demo").status_code == 404 and client(state).post("/api/demo", json={}).status_code == 404
    state.upload, state.runs = (10, 1.0), []
    assert client(state).get("/", follow_redirects=False).headers["location"] == "/demo"


def test_the_api_explains_itself(state: State) -> None:
    asked = client(state)
    told = asked.get("/openapi.json").json()
    paths = {"/api/runs", "/api/rows", "/api/rows/{run}/{row}", "/api/rows/{run}/{row}/correct", "/api/demo",
             "/api/rows/{run}/{row}/undo", "/api/rows/{run}/{row}/ask", "/audio/{run}/{row}.wav"}  # fmt: skip
    assert paths <= set(told["paths"])
    page = asked.get("/api").text
    assert all(path in page for path in paths) and "Change" in page
    for path in ("/docs", "/redoc"):
        assert asked.get(path).status_code == 404, "these would load scripts from elsewhere"


def test_an_error_of_ours_tells_nobody_where_it_was(state: State, tmp_path: Path) -> None:
    state.runs[0].catalog.close()
    answer = client(state).get("/api/rows/0/0")
    assert answer.status_code == 500 and str(tmp_path) not in answer.text and "Traceback" not in answer.text


def test_an_answer_that_the_run_was_too_unsure_of_is_shown_as_such_and_may_be_marked_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    write_run(tmp_path / "run", [row(0, "/in/a.wav", text=None, text_unsure="A saw."), row(1, "/in/b.wav")])
    unsure = made_state(tmp_path)
    asked = client(unsure)
    page = Page(asked.get("/", params={"q": "saw"}).text)
    assert "A saw." in page.text and "below the run's least confidence" in page.text
    now = asked.post("/api/rows/0/0/correct", json={"seen": 0, "by": "Ann", "mark": "right"}).json()
    assert (now["text"], now["answer"]) == (None, "A saw.")
    assert [each["output"] for each in corrected_records(str(tmp_path / "run"))] == ["A saw."]
    unsure.sounds.close()


def test_no_error_names_a_place_of_this_machine(state: State, tmp_path: Path) -> None:
    """A damaged correction, a model that cannot be loaded, an answer that cannot be made."""
    asked = client(state)
    problem = SettingsError("model", f"{tmp_path}/models/x is damaged", f"look into {tmp_path}/models")
    state.answerer = Echo()
    state.answerer.ready = Future()
    state.answerer.ready.set_exception(problem)
    loading = asked.post("/api/rows/0/0/ask", json={"question": "?"})
    failing: Future[dict[str, Any]] = Future()
    failing.set_exception(problem)
    state.answerer = Echo()
    state.answerer.ask = lambda _: failing  # type: ignore[method-assign, misc, assignment]
    answering = asked.post("/api/rows/0/0/ask", json={"question": "?"})
    assert (loading.status_code, answering.status_code) == (503, 422)
    (tmp_path / "run" / "corrections").mkdir()
    (tmp_path / "run" / "corrections" / "000000000000-000001.parquet").write_text("torn")
    state.runs[0]._seen_at -= 100
    told = [asked.get(path) for path in ("/", "/?q=tone", "/api/rows", "/api/rows/0/0", "/clip/0/0")]
    assert [each.status_code for each in told] == [200, 200, 422, 422, 422]
    for each in (loading, answering, *told):
        assert str(tmp_path) not in each.text and re.search("damaged|no whole correction", each.text), each.text


def test_names_in_json_are_no_markup(state: State) -> None:
    answer = client(state).get("/api/rows")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.text)["rows"][1]["name"] == HOSTILE
    assert not re.search(r"/tmp/|/home/", answer.text)
