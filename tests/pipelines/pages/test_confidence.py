"""Confidence on the report: beside every answer, least first, and nothing of it where a run has none."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest

from pipelines.pages.answers import Answers
from pipelines.pages.report import write_report
from tests.pipelines.pages.made_up import Page, error, row, write_run

SURE = {"a": 0.97, "b": 0.31, "c": 0.72, "d": None}


def written(tmp_path: Path, confident: bool = True) -> Path:
    rows = []
    for number, (name, sure) in enumerate(SURE.items()):
        own = {"confidence": sure, "text_unsure": None} if confident else {}
        rows.append(row(number, str(tmp_path / f"{name}.wav"), text=f"answer {name}", **own))
    if confident:
        rows[1] |= {"text": None, "text_unsure": "answer b"}
    rows.append(error(4, str(tmp_path / "e.wav"), "not_audio", "no"))
    write_report(write_run(tmp_path / "out", rows), tmp_path / "page.html", max_files=2)
    return tmp_path / "page.html"


@pytest.mark.processes
def test_answers_show_how_sure_they_are_and_the_least_sure_come_first(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    page = Page(text)
    options = [each["value"] for each in page.all("option")]
    assert options[options.index("unsure") :][:2] == ["unsure", "heard"]
    assert "67 %" in page.text and "1 held back" in page.text  # (0.97 + 0.31 + 0.72) / 3
    cards = {str(each["data-name"]).rsplit("/", 1)[1]: each["data-sure"] for each in page.all("article")}
    assert cards["b.wav"] == "0.31"  # of two with a picture one is the least sure
    found = re.search(r'id="everything">([^<]*)<', text)
    assert found is not None
    packed = [json.loads(line) for line in gzip.decompress(base64.b64decode(found[1])).splitlines()]
    told = {each["n"].rsplit("/", 1)[-1]: (each.get("u"), each["p"][0][7:]) for each in packed}
    whole = {"a.wav": (0.97, [0.97]), "c.wav": (0.72, [0.72]), "d.wav": (None, [])}
    assert told == {name: facts for name, facts in whole.items() if name in told}
    assert len(told) == 2
    held = page.all("span", "held")
    assert len(held) == 1 and "answer b" in page.text
    marks = {str(each["class"]).split()[1] for each in page.all("span", "sure-of")}
    assert "low" in marks


@pytest.mark.processes
def test_a_run_without_confidence_is_as_before(tmp_path: Path) -> None:
    page = Page(written(tmp_path, confident=False).read_text())
    assert "unsure" not in [each["value"] for each in page.all("option")]
    assert "Confidence" not in page.text and not page.all("span", "sure-of")
    assert {each["data-sure"] for each in page.all("article")} == {""}


def test_pictures_are_of_the_least_sure_and_of_a_random_rest(tmp_path: Path) -> None:
    rows = [row(n, f"/a/{n}.wav", confidence=(n * 37 % 100) / 100) for n in range(100)]
    found = Answers(write_run(tmp_path / "out", rows) + "/answers")
    chosen = found.sample(20)
    least = {f"/a/{n}.wav" for n in range(100) if (n * 37 % 100) < 10}
    assert least <= set(chosen) and len(chosen) == 20
    assert chosen == sorted(chosen, key=found.uris.index)
    assert found.sample(20) == chosen
    assert found.totals.mean_confidence == pytest.approx(0.495)
