"""Answers → one self-contained HTML page: totals, errors, and every file to see, hear and read.

Spectrograms and short previews are made from the originals where they can still be read. With the truth of
an embedded-world archive, labels are shown as right, missed or wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from mats_core import storage
from mats_core.storage.uris import Uri, uri_text
from pipelines.pages.answers import Totals, find_answers, path_text, printable_path, read_files, survey
from pipelines.pages.media import add_media
from pipelines.pages.render import check_page, render_page
from pipelines.pages.truth import LabelCounts, Truth, compare_labels, load_truth, truth_of


@dataclass
class ReportResult:
    """Where the page is, what it counts, its files as the template sees them, and how many parts can be seen and heard.

    labels: sound kinds named in the answers against the truth, over the files shown.
    """

    uri: str
    size_bytes: int
    totals: Totals
    labels: LabelCounts
    files: list[dict[str, Any]] = field(repr=False)
    previews: int


def write_report(
    answers: Uri,
    out_path: Uri,
    truth: Uri | Sequence[Mapping[str, Any]] | None = None,
    *,
    title: str = "MATS answers",
    max_files: int = 200,
    preview_seconds: float = 20.0,
    max_media_bytes: int = 8_500_000,
    workers: int = 1,
) -> ReportResult:
    """Write the report of any caption run: a URI of its OUTPUT, or of its ``answers`` folder, → a page at ``out_path``.

    Raises SettingsError, before anything is decoded, where there are no answers, ``truth`` is not what it should be, or
    no page can be written.

    Args:
        truth: rows of ``mats_core.soundworld.archive``, or the path of their ``truth.jsonl``.
        max_files: of a larger archive, this many are shown: a fixed random sample, by a hash of the URI.
        preview_seconds: how much of a chunk can be listened to.
        max_media_bytes: pictures and previews together, as they weigh in the page; later rows go without.
        workers: decoding processes.
    """
    answers, out_path = uri_text(answers), uri_text(out_path)
    folder, run = find_answers(answers)
    check_page(out_path)
    facts = load_truth(truth)
    totals, chosen = survey(folder, max_files)
    files = read_files(folder, chosen)
    root = _common_root([str(file["uri"]) for file in files])
    labels = LabelCounts()
    for file in files:
        _describe(file, root, facts, labels)
    previews = add_media(files, preview_seconds, max_media_bytes, workers)
    page = render_page(
        "report.html.j2",
        title=title,
        files=files,
        totals=totals,
        labels=labels,
        run=run,
        has_truth=facts is not None,
        preview_seconds=preview_seconds,
    )
    storage.write_bytes(out_path, page)
    return ReportResult(out_path, len(page), totals, labels, files, previews)


def _common_root(uris: list[str]) -> str:
    """The folder that all files share, with "/" at its end ("" when there is none)."""
    levels = zip(*(path_text(uri).split("/")[:-1] for uri in uris), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels)]
    return "/".join([*shared, ""])


def _describe(file: dict[str, Any], root: str, facts: Mapping[str, Truth] | None, labels: LabelCounts) -> None:
    """Add what the template shows of a file: names, facts, and labels right, missed and wrong by part."""
    name = printable_path(path_text(str(file["uri"])).removeprefix(root))
    folder, _, base = name.rpartition("/")
    parts = file["parts"]
    known = truth_of(str(file["uri"]), facts) if facts is not None else None
    own = LabelCounts()
    for part in parts:
        part["start"] = part.get("start_s") or 0.0
        heard = part.get("decoded_s")
        part["length"] = heard if heard is not None else part.get("duration_s")
        whole = part.get("duration_s")
        short = heard is not None and whole is not None and heard < whole - 0.1
        part["broke_off"] = short if part.get("complete") is None else not part["complete"]
        part["labels"] = []
        if known is not None and not part.get("error_code"):
            compare_labels(part, known, own)
    labels.update(own)
    lengths = [part["start"] + (part.get("duration_s") or part.get("decoded_s") or 0.0) for part in parts]
    file.update(folder=folder, name=base, length=max(lengths) or None, f1=own.f1, slips=own["missed"] + own["wrong"])
    words = [name, *(str(part.get(k) or "") for part in parts for k in ("text", "truth", "error_code"))]
    file["search"] = " ".join(words).lower()
