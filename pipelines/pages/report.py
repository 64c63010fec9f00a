"""Answers → HTML pages: totals, errors, and every file to find and read, many of them to see and hear.

The page has everything in its search. Spectrograms and players are made from the originals where they can still be
read, for a sample of the files; asked for more, further pages go into a folder beside it. With the truth of an
embedded-world archive, labels are shown as right, missed or wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from mats_core import storage
from mats_core.storage.uris import Uri, archive_of, local_path, public_uri, scheme, uri_text
from pipelines.output.corrections import read_corrections
from pipelines.pages.answers import Answers, Totals, find_answers, partial_run, path_text, printable_path
from pipelines.pages.everything import packed
from pipelines.pages.media import GONE, PREVIEW_SECONDS, add_media
from pipelines.pages.render import check_page, is_ours, render_page
from pipelines.pages.truth import LabelCounts, Truth, compare_labels, load_truth, truth_of

FILES = 200
MOST_FAILED = 2000
"""Files that failed, as cards on the first page; the search has those beyond."""
PARTS_A_PAGE = 150
KEPT = ("text", "text_unsure", "truth", "error_code", "question")
"""What the search finds of a row."""


@dataclass
class ReportResult:
    """Where the page is, how large all pages are, what they count, its files as the template sees them, and how many
    parts can be seen and heard.

    labels: sound kinds named in the answers against the truth, over all files. pages: how many there are; those behind
    the first lie in a folder beside it. partial: of a run that has not come to its end, how far it is and how it goes
    on; "" for others.
    """

    uri: str
    size_bytes: int
    totals: Totals
    labels: LabelCounts
    files: list[dict[str, Any]] = field(repr=False)
    previews: int
    pages: int = 1
    partial: str = ""


@dataclass(frozen=True)
class _Describer:
    """What the template shows of a file: names, link, facts, and labels right, missed and wrong by part."""

    root: str
    facts: Mapping[str, Truth] | None

    def __call__(self, file: dict[str, Any], order: int) -> LabelCounts:
        uri = str(file["uri"])
        name = printable_path(path_text(uri).removeprefix(self.root))
        folder, _, base = name.rpartition("/")
        known = truth_of(uri, self.facts) if self.facts is not None else None
        own = LabelCounts()
        for part in file["parts"]:
            part["start"] = part.get("start_s") or 0.0
            heard, whole = part.get("decoded_s"), part.get("duration_s")
            part["length"] = heard if heard is not None else whole
            short = heard is not None and whole is not None and heard < whole - 0.1
            part["broke_off"] = short if part.get("complete") is None else not part["complete"]
            part["labels"] = []
            if known is not None and not part.get("error_code"):
                compare_labels(part, known, own)
        parts = file["parts"]
        sure = [part["confidence"] for part in parts if part.get("confidence") is not None]
        lengths = [part["start"] + (part.get("duration_s") or part.get("decoded_s") or 0.0) for part in parts]
        failed = [part for part in parts if part.get("error_code")]
        told = {part.get("error_code") for part in failed}
        file.update(
            order=order, folder=folder, name=base, length=max(lengths) or None, place=printable_path(path_text(uri)),
            f1=own.f1, slips=own["missed"] + own["wrong"], gone="not_found" not in told and _is_gone(uri),
            failed=len(failed) == len(parts), broken=bool(failed) or any(part["broke_off"] for part in parts),
        )  # fmt: skip
        file["sure"] = min(sure, default=None)
        words = [name, *(str(part.get(k) or "") for part in parts for k in KEPT)]
        file["search"] = " ".join(words).lower()
        return own


def write_report(
    answers: Uri,
    out_path: Uri,
    truth: Uri | Sequence[Mapping[str, Any]] | None = None,
    *,
    title: str = "MATS answers",
    max_files: int | None = FILES,
    preview_seconds: float = PREVIEW_SECONDS,
    max_media_bytes: int = 50_000_000,
    workers: int = 1,
    overwrite: bool = False,
) -> ReportResult:
    """Write the report of any caption run: a URI of its OUTPUT, or of its ``answers`` folder, → a page at ``out_path``.

    Raises SettingsError, before anything is decoded, where there are no answers, ``truth`` is not what it should be, or
    no page can be written, or would replace a file that is no page of MATS.

    Args:
        truth: rows of ``mats_core.soundworld.archive``, or the path of their ``truth.jsonl``.
        max_files: files with pictures and players (None: all): a fixed random sample of more, by a hash of the URI.
            Beyond FILES, they are spread over pages in the folder ``<out_path without its ending>-pages``. Files that
            failed are shown besides, and the search finds all.
        preview_seconds: how much of a chunk can be listened to.
        max_media_bytes: pictures and players of one page together, as they weigh in it; later rows go without.
        workers: decoding processes.
        overwrite: replace whatever file is at ``out_path``.
    """
    answers, out_path = uri_text(answers), uri_text(out_path)
    folder, run = find_answers(answers)
    check_page(out_path, overwrite)
    facts = load_truth(truth)
    output = folder.rpartition("/")[0] or "."
    said = read_corrections(output)
    found = Answers(folder, run.get("pruned") or (), said)
    sample = found.sample(max_files)
    shown = {*sample, *[uri for uri in found.uris if uri in found.failed][:MOST_FAILED]}
    describe = _Describer(_common_root(found.uris), facts)
    orders = {uri: order for order, uri in enumerate(found.uris)}
    labels = LabelCounts()

    pages = list(_pages(found, [uri for uri in found.uris if uri in shown], several=len(sample) > FILES))
    page_of = {uri: number for number, uris in reversed(list(enumerate(pages))) for uri in uris}
    names = [out_path, *(_page_uri(out_path, number) for number in range(1, len(pages)))]
    for name in names[1:]:
        check_page(name, overwrite)

    def everything() -> Iterator[dict[str, Any]]:
        for file in found.files(found.uris):
            labels.update(describe(file, orders[file["uri"]]))
            found.totals.gone += file["gone"]
            number = page_of.get(file["uri"])
            if number == 0:
                continue
            file["link"] = _link(str(file["uri"]), out_path)
            file["card"] = None if number is None else f"{_relative(names[number], out_path)}#f{orders[file['uri']]}"
            yield file

    index = packed(everything())
    partial = partial_run(run, found.totals.rows, output)
    result = ReportResult(out_path, 0, found.totals, labels, [], 0, len(pages), partial)
    shared = {
        "title": title, "totals": found.totals, "labels": labels, "run": run, "has_truth": facts is not None,
        "preview_seconds": preview_seconds, "partial": partial,
    }  # fmt: skip
    for number, uris in enumerate(pages):
        files = list(found.files(uris))
        for file in files:
            describe(file, orders[file["uri"]])
            file["link"] = _link(str(file["uri"]), names[number])
            for part in file["parts"] if file["gone"] else ():
                part["unseen"] = GONE
        there = [file for file in files if not file["gone"]]
        seen = add_media(there, preview_seconds, max_media_bytes, workers) if there else 0
        # note: what a store has lost shows when it is asked, and so for the files that are decoded
        lost = [file for file in there if any(part.get("unseen") == GONE for part in file["parts"])]
        for file in lost:
            file["gone"] = True
        found.totals.gone += len(lost)
        links = [_relative(name, names[number]) for name in names]
        whole = len(shown) == found.totals.files
        page = render_page(
            "report.html.j2", files=files, number=number, links=links, whole=whole,
            index="" if number or (whole and len(pages) == 1) else index,
            unplayed=sum(not p.get("picture") and not p.get("error_code") and not p.get("unseen")
                         for f in files for p in f["parts"]), **shared,
        )  # fmt: skip
        storage.write_bytes(names[number], page)
        result.size_bytes += len(page)
        result.previews += seen
        result.files += files if number == 0 else []
    _remove_older(out_path, len(pages))
    return result


def _pages(found: Answers, uris: Sequence[str], several: bool) -> Iterator[list[str]]:
    """Which files stand on which page: all on one, or as many as PARTS_A_PAGE rows take."""
    if not several:
        yield list(uris)
        return
    page: list[str] = []
    rows = 0
    for uri in uris:
        count = 0 if uri in found.failed else found.rows_of(uri)
        if page and rows + count > PARTS_A_PAGE:
            yield page
            page, rows = [], 0
        page.append(uri)
        rows += count
    yield page


def _page_uri(out: str, number: int) -> str:
    """Where a page behind the first lies: "report-pages/2.html" beside "report.html"."""
    return f"{_pages_folder(out)}/{number + 1}.html"


def _pages_folder(out: str) -> str:
    head, slash, name = out.rpartition("/")
    return f"{head}{slash}{name.removesuffix('.html')}-pages"


def _remove_older(out: str, pages: int) -> None:
    """Remove the further pages that an earlier, longer report of this name had."""
    number = pages if pages > 1 else 1
    while storage.exists(uri := _page_uri(out, number)) and is_ours(uri):
        storage.remove_tree(uri)
        number += 1


def _relative(uri: str, page: str) -> str:
    """A page of this report as another of its pages links to it."""
    base = page.rpartition("/")[0]
    if uri.rpartition("/")[0] == base:
        return quote(uri.rpartition("/")[2])
    if base and uri.startswith(base + "/"):
        return quote(uri[len(base) + 1 :])
    if not base and "/" in uri:
        return quote(uri)
    return "../" + quote(uri.rpartition("/")[2])


def _link(uri: str, page: str) -> str | None:
    """What a browser opens of a sound: an http address, or a local file as seen from the page; None for a store's."""
    if scheme(uri) in ("http", "https"):
        return public_uri(uri)
    path, here = local_path(uri), local_path(page)
    if path is None:
        return None
    if here is None:
        return f"file://{quote(path)}"
    return quote(os.path.relpath(path, os.path.dirname(os.path.abspath(here)) or b"."))


def _is_gone(uri: str) -> bool:
    """Whether a local file, or the local archive it lies in, is not there any more."""
    path = local_path(archive_of(uri))
    return path is not None and not os.path.exists(path)


def _common_root(uris: Sequence[str]) -> str:
    """The folder that all files share, with "/" at its end ("" when there is none)."""
    folders = {path_text(uri).rpartition("/")[0] for uri in uris}
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels)]
    return "/".join([*shared, ""])
