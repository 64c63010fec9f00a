"""The pages in a real browser: find, listen, ask, put right, reload, two windows; the page to drop a sound on."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.browser import PALE, WIDER, of_screen, wait
from tests.pipelines.pages.made_up import tone, wav, write_run
from tests.pipelines.serve.made_up import HOSTILE, made_rows
from tests.pipelines.serve.test_run import Running

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATS_CACHE", str(place / "cache"))
        patch.setenv("USER", "ann")
        patch.setenv("LOGNAME", "ann")
        run = write_run(place / "run", made_rows(place / "in"), {"settings": {"model": "builtin"}})
        found = Running(runs=[run], demo=True, device="cpu")
        yield found
        found.end()


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Callable[[str], Any]]:
    """Opens a page; no error and nothing that the policy blocked may be in the browser's log at the end."""

    def opened(path: str = "", width: int = 1280, scheme: str = "light") -> Any:
        of_screen(browser, width, scheme)
        browser.get(server.url + path)
        return browser

    yield opened
    wrong = [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert not [each for each in wrong if "409" not in each]


def card(there: Any, row: int) -> Any:
    return there.find_element("id", f"r0-{row}")


def press(there: Any, keys: str) -> None:
    for key in keys:
        there.switch_to.active_element.send_keys(key)


def test_words_are_found_and_the_address_keeps_them(page: Callable[..., Any]) -> None:
    there = page()
    assert len(there.find_elements("css selector", ".row")) == 4
    assert HOSTILE.split("\n")[0] in card(there, 1).find_element("tag name", "h2").text
    there.find_element("id", "q").send_keys("high tone\n")
    wait(there, lambda _: "q=high+tone" in there.current_url and "by=" not in there.current_url)
    assert [each.get_dom_attribute("data-row") for each in there.find_elements("css selector", ".row")] == ["1"]
    there.back()
    wait(there, lambda _: len(there.find_elements("css selector", ".row")) == 4)


def test_a_sound_is_heard_and_starts_where_it_is_clicked(page: Callable[..., Any]) -> None:
    there = page()
    audio = card(there, 0).find_element("tag name", "audio")
    card(there, 0).find_element("css selector", ".play").click()
    wait(there, lambda _: audio.get_property("currentTime") > 0.2)
    assert not audio.get_property("paused") and audio.get_property("duration") == pytest.approx(2.0, abs=0.01)
    card(there, 0).find_element("tag name", "summary").click()
    wait(there, lambda _: card(there, 0).find_elements("css selector", "[data-at]"))
    second = card(there, 0).find_elements("css selector", "[data-at]")[1]
    assert second.text == "0:01 – 0:02"
    second.click()
    wait(there, lambda _: audio.get_property("currentTime") > 1.05)
    assert "A <b>tone</b>." in card(there, 0).find_element("css selector", ".near").text
    card(there, 1).find_element("css selector", ".play").click()
    wait(there, lambda _: audio.get_property("paused"))  # one is heard at a time
    wait(there, lambda _: card(there, 0).find_element("tag name", "img").get_property("naturalWidth") == 480)


def test_a_question_is_answered_with_its_neighbours(page: Callable[..., Any]) -> None:
    there = page()
    press(there, "ja")
    press(there, "Is there rain?\n")
    told = card(there, 0).find_element("css selector", ".told")
    wait(there, lambda _: told.find_elements("css selector", ".answer:not(.waiting)"))
    assert told.find_element("css selector", ".answer").text not in ("", "listening …")
    assert told.find_elements("css selector", ".near li")
    there.execute_script("arguments[0].focus()", card(there, 0))
    press(there, "o")  # opens what is told of the row, not the neighbours of an answer above it
    wait(there, lambda _: card(there, 0).find_elements("css selector", ".words > .details .inside .facts"))
    assert not told.find_element("tag name", "details").get_property("open")
    press(there, "r")  # and it is that which is told anew
    wait(there, lambda _: "ann: right" in card(there, 0).find_element("css selector", ".words > .details").text)
    press(there, "u")
    wait(there, lambda _: "took back" in card(there, 0).find_element("css selector", ".words > .details").text)


def test_a_selection_is_asked_together(page: Callable[..., Any]) -> None:
    there = page()
    press(there, "jxjx")
    selection = there.find_element("id", "selection")
    assert selection.text.startswith("2 selected")
    selection.find_element("name", "question").send_keys("What is it?\n")
    for row in (0, 1):
        told = card(there, row).find_element("css selector", ".told")
        wait(there, lambda _, told=told: told.find_elements("css selector", ".answer:not(.waiting)"))
    assert not card(there, 2).find_elements("css selector", ".told .answer")


def test_what_is_put_right_by_keyboard_stays_after_a_reload_and_is_undone(page: Callable[..., Any]) -> None:
    there = page()
    press(there, "jje")
    text = card(there, 1).find_element("tag name", "textarea")
    text.clear()
    text.send_keys("A <b>whistle</b>.")
    card(there, 1).find_element("css selector", '.edit [name="labels"]').send_keys("whistle, tone\n")
    wait(there, lambda _: card(there, 1).find_element("css selector", ".answer").text == "A <b>whistle</b>.")
    assert "0.20 sure" not in card(there, 1).text, "that was of the model's own words"
    there.refresh()
    shown = card(there, 1)
    assert shown.find_element("css selector", ".answer").text == "A <b>whistle</b>."
    assert [each.text for each in shown.find_elements("css selector", ".chip.label")] == ["whistle", "tone"]
    assert "corrected by ann" in shown.text
    press(there, "jju")
    wait(there, lambda _: card(there, 1).find_element("css selector", ".answer").text == "A high <i>tone</i>.")
    assert not card(there, 1).find_elements("css selector", ".said")
    there.refresh()
    assert "0.20 sure" in card(there, 1).text


def test_a_mark_is_set_and_taken_away_by_the_same_key(page: Callable[..., Any]) -> None:
    there = page()
    press(there, "jr")
    wait(there, lambda _: card(there, 0).get_dom_attribute("data-mark") == "right")
    press(there, "r")
    wait(there, lambda _: card(there, 0).get_dom_attribute("data-mark") == "")


def test_of_two_windows_the_second_is_told_and_may_write_again(page: Callable[..., Any]) -> None:
    there = page()
    first = there.current_window_handle
    there.switch_to.new_window("tab")
    page()
    second = there.current_window_handle
    there.switch_to.window(first)
    press(there, "jjjr")
    wait(there, lambda _: card(there, 2).get_dom_attribute("data-mark") == "right")
    there.switch_to.window(second)
    press(there, "jjje")
    text = card(there, 2).find_element("tag name", "textarea")
    text.clear()
    text.send_keys("yes")
    save = card(there, 2).find_element("css selector", '.edit [type="submit"]')
    save.click()
    note = card(there, 2).find_element("css selector", ".note")
    wait(there, lambda _: "Not saved: ann changed this answer" in note.text)
    assert card(there, 2).get_dom_attribute("data-mark") == "right", "it is shown as it is now"
    assert text.get_property("value") == "yes", "and what was typed is not lost"
    save.click()
    wait(there, lambda _: card(there, 2).find_element("css selector", ".answer").text == "yes")
    there.close()
    there.switch_to.window(first)


def test_the_token_is_asked_for_once_and_no_script_sees_it(browser: Any, place: Path, server: Running) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATS_CACHE", str(place / "cache"))
        closed = Running(runs=[str(place / "run")], model="none", token="0123456789abcdef")
    try:
        browser.get(closed.url)
        browser.find_element("name", "token").send_keys("0123456789abcdef\n")
        wait(browser, lambda _: len(browser.find_elements("css selector", ".row")) == 4)
        assert "token" not in browser.current_url and browser.execute_script("return document.cookie") == ""
        browser.get(f"{closed.url}?q=high")
        assert len(browser.find_elements("css selector", ".row")) == 1
        wait(browser, lambda _: browser.find_element("css selector", ".row img").get_property("naturalWidth") == 480)
    finally:
        browser.delete_all_cookies()
        browser.get_log("browser")  # 401 is in it
        closed.end()


def test_the_help_tells_the_keys(page: Callable[..., Any]) -> None:
    there = page()
    press(there, "?")
    assert there.find_element("id", "keys").is_displayed() and "play, stop" in there.find_element("id", "keys").text


def test_a_sound_that_is_dropped_is_answered(page: Callable[..., Any], place: Path) -> None:
    there = page("demo")
    there.find_element("id", "file").send_keys(wav(place / "mine.wav", tone(500, 2)))
    wait(there, lambda _: there.find_elements("css selector", "#said .answer"))
    assert there.find_element("css selector", "#said .answer").text
    assert there.find_elements("css selector", "#said .near li")
    wait(there, lambda _: there.find_element("id", "picture").get_property("naturalWidth") == 480)
    player = there.find_element("id", "player")
    there.find_element("tag name", "h1").click()  # nothing plays before somebody did something
    there.execute_script("arguments[0].play()", player)
    wait(there, lambda _: player.get_property("currentTime") > 0.1)
    (place / "text.wav").write_text("no sound at all")
    there.find_element("id", "file").send_keys(str(place / "text.wav"))
    wait(there, lambda _: "not_audio" in there.find_element("id", "wrong").text)
    there.get_log("browser")  # the refusal is in it


DROP = """
const [base64, name] = arguments, bytes = Uint8Array.from(atob(base64), each => each.charCodeAt(0));
const given = new DataTransfer();
given.items.add(new File([bytes], name));
const event = new DragEvent("drop", {dataTransfer: given, bubbles: true, cancelable: true});
document.getElementById("drop").dispatchEvent(event);
"""


def test_a_sound_may_be_dropped_in_a_format_that_the_browser_does_not_play(page: Callable[..., Any]) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(500, 2), 16_000, format="AIFF", subtype="PCM_16")
    there = page("demo")
    there.execute_script(DROP, base64.b64encode(file.getvalue()).decode(), "<b>my</b>.aiff")
    wait(there, lambda _: there.find_elements("css selector", "#said .answer"))
    assert "<b>my</b>.aiff" in there.find_element("id", "drop").text
    wait(there, lambda _: not there.find_element("id", "player").is_displayed())


SLOW = """
const real = window.fetch;
let held = null;
window.fetch = (...asked) => real(...asked).then(answer => {
  if (held) { return answer; }
  return new Promise(done => { held = () => done(answer); });
});
window.release = () => held();
window.holds = () => held !== null;
"""


def test_the_answer_to_a_sound_is_never_shown_as_that_of_another(page: Callable[..., Any], place: Path) -> None:
    """The first answer comes after the second."""
    there = page("demo")
    there.execute_script(SLOW)
    field, go = there.find_element("id", "file"), there.find_element("id", "go")
    field.send_keys(wav(place / "first.wav", tone(500, 2)))
    wait(there, lambda _: there.execute_script("return window.holds()"))
    assert go.text == "Listening …"
    field.send_keys(wav(place / "second.wav", tone(900, 2)))
    picture = there.find_element("id", "picture")
    wait(there, lambda _: picture.get_property("naturalWidth") == 480)
    shown = picture.get_property("src")
    there.execute_script("window.release()")
    time.sleep(0.5)
    assert picture.get_property("src") == shown and go.text == "Listen" and go.is_enabled()
    assert "second.wav" in there.find_element("id", "drop").text


def test_a_sound_is_recorded_and_a_question_about_it_answered(page: Callable[..., Any]) -> None:
    there = page("demo")
    record = there.find_element("id", "record")
    record.click()
    wait(there, lambda _: record.text == "■ Stop")
    time.sleep(1.5)
    record.click()
    wait(there, lambda _: there.find_elements("css selector", "#said .answer"))
    assert "recording." in there.find_element("id", "drop").text
    there.find_element("css selector", 'option[value="QA"]').click()
    there.find_element("name", "question").send_keys("Is there rain?\n")
    wait(
        there, lambda _: [q.text for q in there.find_elements("css selector", "#said .question")] == ["Is there rain?"]
    )
    assert there.find_element("css selector", "#said .answer").text


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "demo", "api"])
def test_nothing_is_wider_than_the_screen_and_all_can_be_read(
    page: Callable[..., Any], path: str, width: int, scheme: str
) -> None:
    there = page(path, width, scheme)
    there.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    there.execute_script("document.querySelectorAll('.edit, .ask, .note').forEach(each => each.hidden = false)")
    assert there.execute_script(WIDER) == []
    assert there.execute_script(PALE) == []
