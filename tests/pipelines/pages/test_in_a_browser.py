"""The page in a real browser: a click on a segment plays from there, and nothing is wider than the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.pages.report import write_report
from tests.browser import PALE, WIDER, of_screen, wait
from tests.pipelines.pages.made_up import error, row, tone, wav, write_run

pytestmark = pytest.mark.processes
SECONDS = 24.0
SEGMENT_S = 7.0


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two sounds with segments, and of a file that failed, with a name as long as names are."""
    root = tmp_path_factory.mktemp("page")
    segments = [
        {"start_s": at, "end_s": min(at + SEGMENT_S, SECONDS), "text": f"from {at:g}"} for at in (0.0, 7.0, 14.0, 17.0)
    ]
    rows = [
        row(
            number,
            wav(root / "in" / name, tone(hertz, SECONDS)),
            duration_s=SECONDS,
            decoded_s=SECONDS,
            segments=segments,
        )
        for number, (name, hertz) in enumerate([("low.wav", 220.0), ("x" * 180 + ".wav", 880.0)])
    ]
    rows.append(error(2, str(root / "in" / "broken.wav"), "decode_failed", "no sound " * 40))
    out = root / "report.html"
    write_report(write_run(root / "out", rows, {"settings": {"input": "in"}}), out)
    return out


def test_a_click_on_a_segment_plays_from_there(browser: Any, report: Path) -> None:
    browser.get(report.as_uri())
    card, other = browser.find_elements("css selector", "article.file:not(.failed)")[:2]
    audio, button = card.find_element("tag name", "audio"), card.find_element("css selector", ".play")
    assert audio.get_attribute("src").startswith("data:audio/")
    assert audio.get_property("paused")

    card.find_element("tag name", "summary").click()
    third = card.find_elements("css selector", "button.there")[2]
    assert third.text == "0:14 – 0:21"
    third.click()
    wait(browser, lambda _: not audio.get_property("paused") and audio.get_property("currentTime") > 14.1)
    assert 14.1 < audio.get_property("currentTime") < 20, "it plays, from there"
    assert audio.get_property("duration") == pytest.approx(SECONDS, abs=0.2)
    assert "on" in button.get_attribute("class").split()

    card.find_elements("css selector", "button.there")[1].click()
    wait(browser, lambda _: 7.0 < audio.get_property("currentTime") < 13)
    assert not audio.get_property("paused")

    other.find_element("css selector", ".play").click()
    wait(browser, lambda _: audio.get_property("paused"))  # one is heard at a time
    assert not other.find_element("tag name", "audio").get_property("paused")
    picture = other.find_element("css selector", ".picture")
    picture.click()  # in its middle
    wait(browser, lambda _: other.find_element("tag name", "audio").get_property("currentTime") > SECONDS / 2 - 1)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_what_is_too_wide_or_too_pale_is_found(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text('<p style="width: 2000px">wide</p><p style="color: #aaa; background: #fff">pale</p><p>good</p>')
    show(browser, page, 1280, "light")
    assert [text[:12] for text in browser.execute_script(WIDER)] == ['<p style="wi']
    (pale,) = browser.execute_script(PALE)
    assert pale.startswith("2.32 <p style")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen_and_all_can_be_read(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    """Letters stand out from what is behind them as WCAG asks: 4.5 to 1, 3 to 1 for large ones."""
    show(browser, report, width, scheme)
    assert browser.execute_script(WIDER) == []
    assert browser.execute_script(PALE) == []


def show(browser: Any, page: Path, width: int, scheme: str) -> None:
    """Open a page as a screen of that width has it, with segments and the like unfolded."""
    of_screen(browser, width, scheme)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_least_sure_answers_come_first_with_and_without_a_picture(
    browser: Any, tmp_path: Path, scheme: str, width: int
) -> None:
    sounds = [wav(tmp_path / "in" / f"{n}.wav", tone(220.0 * (n + 1), 1.0)) for n in range(6)]
    sure = [0.9, 0.2, 0.7, 0.1, 0.95, 0.5]
    rows = [row(n, uri, text=f"answer {n}", confidence=sure[n]) for n, uri in enumerate(sounds)]
    out = tmp_path / "report.html"
    write_report(write_run(tmp_path / "out", rows), out, max_files=2)
    show(browser, out, width, scheme)
    wait(browser, lambda b: len(b.find_elements("css selector", ".answer")) == 6)
    texts = [each.text for each in browser.find_elements("css selector", ".answer")]
    assert texts == [f"answer {n} {round(100 * sure[n])} %" for n in (3, 1, 5, 2, 0, 4)]
    marks = browser.find_elements("css selector", ".sure-of")
    assert len({each.value_of_css_property("color") for each in marks}) == 3  # low, middling, high
    assert browser.execute_script(WIDER) == []
    assert browser.execute_script(PALE) == []
