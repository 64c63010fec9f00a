"""What the documents point at is there."""

from __future__ import annotations

import html
import importlib.util
import pydoc
import re
from pathlib import Path
from types import ModuleType

import pytest

import mats_core
import pipelines
from mats_core.scoring import METRICS
from mats_core.scoring.sureness import SURENESS
from mats_core.variables import VARIABLES
from pipelines.data.schemas import OUTPUT_COLUMNS
from pipelines.evaluate.history import ANSWERED

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "jobs" / "SCALE.md"]
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What `#…` may be of a page: its headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_readme_leads_to_every_page_and_stays_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"](docs/{page.name})" in text for page in (ROOT / "docs").glob("*.md"))
    assert len(text.splitlines()) <= 200


def test_torch_for_cpus_is_told_with_what_the_other_costs() -> None:
    """From where the image takes it."""
    assert re.search(r"^ARG TORCH_INDEX=https://\S+$", (ROOT / "Dockerfile").read_text(), re.M)
    asked = """torch -i "$(sed -n 's/^ARG TORCH_INDEX=//p' Dockerfile)\""""
    told = [page.read_text() for page in (ROOT / "README.md", ROOT / "docs" / "clusters.md")]
    assert all(asked in page and "0.2 GB" in page and "2.7 GB" in page for page in told)


def build() -> ModuleType:
    """docs/build.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_metric_of_an_evaluation_is_explained() -> None:
    told = (ROOT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    part = told.partition("## Metrics: `mats evaluate`")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \| `[\w, ]+` \| \S.{20,} \|$", part, re.M)
    names = {*(name for own in METRICS.values() for name in own), *SURENESS, ANSWERED}
    assert sorted(explained) == sorted(names)


def test_the_tables_are_those_of_the_code() -> None:
    """`python docs/build.py tables` writes them anew."""
    told = (ROOT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    assert told == build().tables()
    assert all(column.meaning and column.meaning in told for column in OUTPUT_COLUMNS)


def test_every_variable_that_is_read_is_told_and_no_other() -> None:
    ours = [path for package in ("mats_core", "pipelines", "jobs") for path in (ROOT / package).rglob("*.py")]
    told = {path: path.read_text(encoding="utf-8") for path in ours if path.name != "variables.py"}
    read = {name for text in told.values() for name in re.findall(r'environ(?:\.get\(|\[)"(MATS_\w+)"', text)}
    named = {name for text in told.values() for name in re.findall(r'(?<![\w$])"(MATS_[A-Z_]+)"', text)}
    assert read <= named == set(VARIABLES)


@pytest.mark.long
def test_the_pages_of_the_api_lead_nowhere_in_vain(tmp_path: Path) -> None:
    """Ten seconds: each link of each page to a page and a place in it, and each public name with what it is for."""
    pytest.importorskip("pdoc", reason='the extra "docs"')
    build().site(tmp_path / "site")
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    places = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for link in re.findall(r'<a[^>]* href="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = html.unescape(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if target.is_relative_to(tmp_path) and not target.is_relative_to(tmp_path / "site"):
                target = ROOT / target.relative_to(tmp_path)  # a file of the repository
            if not target.exists() or (anchor and target in places and anchor not in places[target]):
                broken.append(f"{path.name}: {link}")
    assert not broken
    for package in (mats_core, pipelines):
        page = pages[tmp_path / "site" / f"{package.__name__}.html"]
        assert all(f'id="{name}"' in page for name in package.__all__), package
    assert "with_embedding" in pages[tmp_path / "site" / "pipelines.html"]


def test_help_shows_the_public_names() -> None:
    for package in (mats_core, pipelines):
        shown = pydoc.render_doc(package, renderer=pydoc.plaintext)
        assert all(name.strip("_") in shown.replace("VERSION", "version") for name in package.__all__), package
    assert "question: 'str | None' = None" in pydoc.render_doc(mats_core.MatsModel.answer, renderer=pydoc.plaintext)
