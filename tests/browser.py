"""A real browser for tests of pages, and what is looked for in them.

Where chromium, its driver or selenium is not installed (`apt-get install chromium-driver`, `pip install selenium`)
tests that ask for it are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "mute-audio"),
    *("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"),
)
"""Without a window, a sandbox (there is none in containers) and sound; with a microphone that beeps."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by selenium, whose log is kept."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


def of_screen(browser: Any, width: int, scheme: str) -> None:
    """Show pages from now on as a screen of that width does, of the scheme `light` or `dark`."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser: Any, what: Callable[[Any], Any]) -> None:
    """Wait until something holds, 60 s at most: the first answer loads a model."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60, poll_frequency=0.05).until(what)


WIDER = """
function scrolls(e) {
  return e && e !== document.body
    && (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
}
return [...document.body.querySelectorAll('*')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !scrolls(e);
}).map(e => e.outerHTML.slice(0, 120));
"""
"""What reaches beyond the screen."""
PALE = r"""
function parts(text) {
  const n = text.match(/[\d.]+/g).map(Number);
  return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
}
const over = (c, under) => [0, 1, 2].map(i => c[i] * c[3] + under[i] * (1 - c[3]));
function behind(e) {
  const own = parts(getComputedStyle(e).backgroundColor);
  return own[3] === 1 || !e.parentElement ? over(own, [255, 255, 255]) : over(own, behind(e.parentElement));
}
function light(colour) {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const written = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())
  && e.getClientRects().length && !e.closest('script, style, .picture, svg')
  && getComputedStyle(e).visibility === 'visible';
return [...document.body.querySelectorAll('*')].filter(written).map(e => {
  const style = getComputedStyle(e), back = behind(e);
  const [a, b] = [light(over(parts(style.color), back)), light(back)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
  return [(a + 0.05) / (b + 0.05), large ? 3 : 4.5, e];
}).filter(([ratio, least]) => ratio < least).map(([ratio, _, e]) => ratio.toFixed(2) + ' ' + e.outerHTML.slice(0, 120));
"""
"""Text that is too pale for WCAG: 4.5 to 1, and 3 to 1 where it is large."""
