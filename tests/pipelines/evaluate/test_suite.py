"""Suites: what is there of them is run, and ours stands beside what was published."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobs.evaluate
from mats_core.errors import SettingsError
from pipelines.evaluate.datasets import list_evaluation_sets
from pipelines.evaluate.run import run_evaluate
from pipelines.evaluate.suite import FOLDER, load_suite, what_is_there
from pipelines.settings.evaluate import EvaluateSettings
from tests.pipelines.evaluate.stand_in import StandIn, install
from tests.pipelines.evaluate.test_run import published

PAPER = yaml.safe_load((FOLDER / "paper.yaml").read_text())


def suite(path: Path, **changes: Any) -> Path:
    """The paper's suite with other fields, as a file of one's own."""
    path.write_text(yaml.safe_dump({**PAPER, **changes}))
    return path


def test_the_paper_is_whole() -> None:
    """Every data set that comes with the code and is not our own; a figure in it has its source."""
    known = {name for name in list_evaluation_sets() if not name.startswith(("soundworld", "corrections"))}
    assert {row.benchmark for row in load_suite("paper").rows} == known
    assert all(row.where for row in load_suite("paper").rows if row.published)


def test_what_bibtex_has_of_a_work_is_in_its_text() -> None:
    for cite in (load_suite("paper").cite, *load_suite("paper").cites.values()):
        names = [name for name in cite.author.split(" and ") if name != "others"]
        for fact in (*names, cite.title, str(cite.year), cite.venue):
            assert fact and fact.lower() in cite.text.lower(), (cite.key, fact)


def test_what_is_there_is_run_and_stands_beside_the_paper(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ESC-50 two of four are right; a figure that is known is shown with its source, one that is not is a gap."""
    install(StandIn(lambda row: "Dog"), monkeypatch)
    row = {"benchmark": "esc50", "metrics": ["accuracy", "macro_f1"], "published": {"A_1": {"accuracy": 0.75}}}
    tables = [
        {"title": "Labels & more", "rows": [{**row, "where": "Table 1"}]},
        {"title": "Captions", "rows": [{"benchmark": "audiocaps", "metrics": ["cider_d"]}]},
    ]
    cites = {"B": {"key": "b2024", "text": "B. B. B.", "url": "https://b.example"}}
    own = suite(tmp_path / "own.yaml", name="own", models=["A_1", "B"], tables=tables, cites=cites)
    out = tmp_path / "out"
    settings = EvaluateSettings(suite=str(own), data=[published(tmp_path / "data")], out=str(out), players=0)
    done = run_evaluate(settings)
    assert [each.data.name for each in done.cells[0].results] == ["esc50"]

    told = (out / "tables" / "own.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines() if line[:1] == "|"]
    assert lines[0] == ["data set", "metric", "ours", "A_1", "B", "items"]
    assert re.fullmatch(r"0\.500 \(0\.\d{3} to 1?0?\.\d{3}\)\*", lines[2][2]) and lines[2][3:] == ["0.750", "–", "4"]
    assert lines[3][:2] == ["ESC-50", "macro F1"] and lines[3][3:5] == ["–", "–"]
    assert lines[6] == ["AudioCaps, test", "CIDEr-D", "–", "–", "–", "–"]
    assert (
        "Published: B. B. B. https://b.example" in told
        and "PMLR 267" in told
        and "esc50: Table 1." in told
        and "no figure is known" in told
    )
    assert re.search(r"Not run:\n\n- audiocaps: ", told)

    rows = list(csv.DictReader((out / "tables" / "own.csv").open()))
    ours, theirs = (next(r for r in rows if r["model"] == m and r["metric"] == "accuracy") for m in ("ours", "A_1"))
    assert (ours["value"], ours["items"], theirs["value"]) == ("0.5", "4", "0.75")
    assert theirs["source"] == "wang2025mats, Table 1"
    assert "there is no folder" in next(r for r in rows if r["benchmark"] == "audiocaps")["source"]

    origin = f"run {done.run_id}, begun "
    part = "4 of 2,000 items were found in "
    assert origin in ours["source"] and "model builtin, fingerprint " in ours["source"] and part in ours["source"]
    assert f"Ours: {origin}" in told and rf"\* ESC-50: {part}" in told

    tex = (out / "tables" / "own.tex").read_text()
    assert f"% ours: {origin}" in tex and rf"\par{{\footnotesize * ESC-50: {part}" in tex
    assert r"\caption{Labels \& more}" in tex and r"A\_1~\cite{wang2025mats} & B~\cite{b2024}" in tex
    assert re.search(r"ESC-50 & accuracy & 0\.500\* {\\scriptsize \[0\.\d{3}, 1?0?\.?\d+\]} & 0\.750 & -- \\\\\n", tex)
    assert r"95 \% intervals, by bootstrap over items. Items: ESC-50 4.}" in tex and "& -- & -- & --" in tex
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 2 and "–" not in tex
    fitted = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    assert tex.count(fitted) == tex.count(r"\end{tabular}}") == 2  # eight columns are twice as wide as a page
    assert all(package in tex.splitlines()[0] for package in ("booktabs", "graphicx", "url"))

    bib = (out / "tables" / "own.bib").read_text()
    assert (
        set(re.findall(r"\\cite{(\w+)}", tex))
        == set(re.findall(r"^@misc{(\w+),$", bib, re.M))
        == {"wang2025mats", "b2024"}
    )
    paper = "  title = {{MATS: An Audio Language Model under Text-only Supervision}},\n  author = {W. Wang and R. Hou"
    assert paper in bib and "  year = {2025},\n  howpublished = {ICML 2025, PMLR 267:63016-63035},\n" in bib
    assert (
        "@misc{b2024,\n  key = {b2024},\n  howpublished = {B. B. B.},\n  note = {\\url{https://b.example}},\n}\n" in bib
    )

    jobs.evaluate.print_evaluation(settings, done)
    shown = capsys.readouterr().out
    assert "| ESC-50 | accuracy | 0.500" in shown and "tables/ (Markdown, LaTeX with BibTeX, CSV)" in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"suite": "papers"}, '"papers" is no suite that comes with the code; choose paper'),
        ({"suite": "paper", "benchmarks": "esc50"}, "suite: benchmarks are named as well"),
        ({"suite": "paper"}, r"of its \d+ data sets none is in .*; name their folder with --data"),
        ({"suite": "none.yaml"}, "is not a readable YAML file"),
    ],
)
def test_a_suite_that_cannot_be_run_is_refused(given: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        what_is_there(EvaluateSettings(**given, data=[str(tmp_path)], out="out"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"benchmark": "esc50", "metrics": ["cider_d"]}, "esc50 has no cider_d; choose of accuracy"),
        ({"benchmark": "esc51", "metrics": ["accuracy"]}, '"esc51" is not a data set'),
        ({"benchmark": "esc50", "metrics": ["accuracy"], "published": {"A": {"accuracy": 1}}}, "have no source"),
        (
            {"benchmark": "esc50", "metrics": ["accuracy"], "published": {"C": {"accuracy": 1}}, "where": "Table 1"},
            "figures are of C",
        ),
    ],
)
def test_a_suite_of_ones_own_is_checked(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = suite(tmp_path / "own.yaml", models=["A"], cites={}, tables=[{"title": "T", "rows": [row]}])
    with pytest.raises(SettingsError, match=told):
        load_suite(path)
