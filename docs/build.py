"""What documents are made of code: `reference/tables.md`, and the pages of `make docs`.

python docs/build.py tables     write docs/reference/tables.md anew
python docs/build.py site       write site/: the documents and, from docstrings, the API (the extra `docs`)
"""

from __future__ import annotations

import functools
import html
import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "docs" / "reference" / "tables.md"
API = ("mats_core", r"!mats_core\.", "pipelines", r"!pipelines\.(?!settings)")
"""Modules with a page; what begins with ! is left out."""


def tables() -> str:
    """The page of tables, each out of the code that it describes."""
    from jobs.terminal.commands import EXIT_CODES
    from mats_core.errors import ERROR_CODES
    from mats_core.scoring import MEANINGS, METRICS
    from mats_core.variables import VARIABLES
    from pipelines.corpus.writing.records import RECORD
    from pipelines.data.schemas import CORRECTION_COLUMNS, MANIFEST_COLUMNS, OUTPUT_COLUMNS, PLACES, REQUESTS
    from pipelines.evaluate.history import COLUMNS as HISTORY
    from pipelines.evaluate.records import PREDICTIONS_COLUMNS
    from pipelines.text.caption_buckets import CAPTION_COLUMNS, EMBEDDING
    from pipelines.text.memory_directory import MEMORY_COLUMNS

    def output(job: str) -> list[tuple[object, ...]]:
        asked = {c.name: c for c in OUTPUT_COLUMNS if job in c.jobs}
        own = [
            (c.name, c.type, c.meaning + (f" With `{option(c.setting)}`." * bool(c.setting))) for c in asked.values()
        ]
        return [*columns(MANIFEST_COLUMNS), *columns(REQUESTS), *own]

    def option(setting: str) -> str:
        return "--" + setting.replace("_", "-")

    def metrics() -> list[tuple[object, ...]]:
        kinds = {name: ", ".join(kind for kind, own in METRICS.items() if name in own) for name in MEANINGS}
        return [(name, kinds[name] or "confidence", meaning) for name, meaning in MEANINGS.items()]

    captions = columns(CAPTION_COLUMNS)
    captions.insert(2, ("embedding", "fixed_size_list<halffloat>", EMBEDDING))
    parts = [
        "# Columns, codes, variables",
        "Made from the code by `python docs/build.py tables`; a test holds it to it. A list's own columns are carried "
        "along beside those below. New columns come last.",
        "## A list as INPUT",
        "A row a sound: `uri`, and what it may say beside. What else it has is carried along.",
        table(("column", "type", "what stands in it"), [*columns(REQUESTS), *columns(PLACES)]),
        "## Answers: `mats caption`",
        "`OUTPUT/answers/*.parquet`, a row a chunk of about a minute, a file or a window (`--per`).",
        table(("column", "type", "what stands in it"), output("caption")),
        "## Corrections: `mats serve`",
        "`OUTPUT/corrections/ROW-VERSION.parquet`, a file each; none is ever changed.",
        table(("column", "type", "what stands in it"), columns(CORRECTION_COLUMNS)),
        "## Audio embeddings: `mats embed-audio`",
        "`OUTPUT/embeddings/*.parquet`, a row a chunk; facts about the whole in `OUTPUT/_embeddings.json`.",
        table(("column", "type", "what stands in it"), output("embed-audio")),
        "## Manifest: `mats scan`",
        "`OUTPUT/manifest/*.parquet`, a row a chunk.",
        table(("column", "type", "what stands in it"), columns(MANIFEST_COLUMNS)),
        "## Caption embeddings: `mats embed-text`",
        "`OUTPUT/embeddings/*.parquet`, a row a distinct caption.",
        table(("column", "type", "what stands in it"), captions),
        "## Memory: `mats build-memory`",
        "`OUTPUT/captions.parquet`; row i is what row i of `index.faiss` says.",
        table(("column", "type", "what stands in it"), columns(MEMORY_COLUMNS)),
        "## Corpus records: `mats corpus`",
        "`OUT/records/SET/*.parquet`, or `OUT/SET.json`; all of them texts. Records of your own need `caption` alone "
        "for embeddings, and `output` for training.",
        table(("column", "what stands in it"), RECORD.items()),
        "## Predictions: `mats evaluate`",
        "`OUT/predictions/CELL.parquet`, a row an item and order of its options.",
        table(("column", "type", "what stands in it"), columns(PREDICTIONS_COLUMNS)),
        "## Metrics: `mats evaluate`",
        "All reach one at best, but for CIDEr-D (ten) and SPIDEr. More is better where nothing else is said. Kinds are "
        "those of data sets; `confidence`: of every kind, where a calibrated model tells how sure it is.",
        table(("metric", "kinds", "what it is"), metrics()),
        "## History: `mats history`",
        "`HISTORY/runs/RUN.parquet`, a row a metric.",
        table(("column", "type", "what stands in it"), columns(HISTORY)),
        "## Error codes",
        "In `error_code` of a row: what is wrong with one file never ends a run.",
        table(("code", "what it means"), ERROR_CODES.items()),
        "## Exit codes",
        table(("code", "what it means"), EXIT_CODES.items()),
        "## Variables of the environment",
        table(("variable", "what it says, and what holds without it"), VARIABLES.items()),
    ]
    return "\n\n".join(parts) + "\n"


def columns(given: Mapping[str, tuple[object, str]]) -> list[tuple[object, ...]]:
    """(name, type, meaning) of the columns of a table."""
    return [(name, kind, meaning) for name, (kind, meaning) in given.items()]


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A table in Markdown; the first cell of a row, and a type, as code."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"`{str(each).replace('|', chr(92) + '|')}`" for each in row[:-1]]
        lines.append("| " + " | ".join([*cells, str(row[-1])]) + " |")
    return "\n".join(lines)


def site(folder: Path) -> None:
    """Write the documents and the API as HTML."""
    import markdown2
    import pdoc

    pdoc.render.configure(docformat="markdown", footer_text="MATS", show_source=True)
    for package in map(importlib.import_module, ("mats_core", "pipelines")):
        for name in package.__all__:  # which are imported when they are used; pdoc looks at what is there
            setattr(package, name, getattr(package, name))
    pdoc.pdoc(*API, output_directory=folder)
    for page in folder.rglob("*.html"):
        page.write_text(_without_dead_links(page.read_text("utf-8")), encoding="utf-8")
    (folder / "api.html").write_bytes((folder / "index.html").read_bytes())
    pages = {ROOT / "README.md": "index.html"}
    for page in sorted(ROOT.glob("docs/**/*.md")):
        pages[page] = f"{page.stem}.html"
    for page, name in pages.items():
        body = markdown2.markdown(page.read_text("utf-8"), extras=["fenced-code-blocks", "tables", "code-friendly"])
        body = re.sub(r"<h([1-6])>(.*?)</h\1>", _with_anchor, body)
        body = re.sub(r'(href|src)="([^"#:]+)(#[^"]*)?"', functools.partial(_link, page=page, pages=pages), body)
        (folder / name).write_text(PAGE.format(title=html.escape(page.stem), body=body), encoding="utf-8")


def _without_dead_links(text: str) -> str:
    """A page of pdoc, which takes every name in a docstring for one that has a place, inherited or not."""
    places = set(re.findall(r'\bid="([^"]+)"', text))
    return re.sub(r'<a href="#([^"]+)">([^<]*)</a>', lambda found: found[0] if found[1] in places else found[2], text)


def _with_anchor(found: re.Match[str]) -> str:
    level, text = found.groups()
    name = re.sub(r"[^\w -]", "", html.unescape(re.sub(r"<.*?>", "", text)).lower()).replace(" ", "-")
    return f'<h{level} id="{name}">{text}</h{level}>'


def _link(found: re.Match[str], page: Path, pages: Mapping[Path, str]) -> str:
    """A link to a document leads to its page, one to another file of the repository to that file beside `site`."""
    kind, target, anchor = found.groups()
    file = (page.parent / target).resolve()
    place = pages.get(file, f"../{file.relative_to(ROOT).as_posix()}")
    return f'{kind}="{place}{anchor or ""}"'


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} · MATS</title><style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
pre, table {{ overflow-x: auto; display: block; }} pre {{ padding: .7rem; background: #8882; }}
td, th {{ text-align: left; padding: .2rem .6rem .2rem 0; vertical-align: top; }} img {{ max-width: 100%; }}
</style></head><body><nav><a href="index.html">MATS</a> · <a href="tables.html">columns, codes, variables</a> ·
<a href="api.html">API</a></nav>
{body}
</body></html>
"""


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["tables"]:
        TABLES.parent.mkdir(exist_ok=True)
        TABLES.write_text(tables(), encoding="utf-8")
    elif sys.argv[1:] == ["site"]:
        site(ROOT / "site")
        print(ROOT / "site" / "index.html")
    else:
        sys.exit(__doc__)
