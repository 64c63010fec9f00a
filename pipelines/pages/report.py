"""Answers → one self-contained HTML page: totals, errors, and every file to see, hear and read.

Spectrograms and short previews are made from the originals where they can still be read. With the truth of
an embedded-world archive, labels are shown as right, missed or wrong.
"""

from __future__ import annotations

import base64
import heapq
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from pydantic import BaseModel, ValidationError

from mats_core import storage
from mats_core.audio.decode import DecodeLimits
from mats_core.audio.sandbox import DecodeRequest, IsolatedDecoder
from mats_core.errors import checked, got_allowed
from mats_core.soundworld.language import WORDS, parse_kinds
from mats_core.storage.clients import READ_ONLY
from mats_core.storage.uris import local_path, printable, public_uri, scheme
from pipelines.data import parquet
from pipelines.pages import preview

FILE_COLUMNS = ("row_id", "uri", "format", "sample_rate", "channels", "start_s")
PART_COLUMNS = (
    "duration_s",
    "decoded_s",
    "task",
    "question",
    "text",
    "segments",
    "error_code",
    "error_message",
)
CHUNK_SECONDS = 60.0
PITCHES = ((300.0, "300 Hz"), (1000.0, "1 kHz"), (4000.0, "4 kHz"))
LABEL_TASKS = ("caption", "cla_label")
DECODE_BATCH = 8


class Minute(BaseModel):
    """What a minute of a scene truly holds, in seconds of the file."""

    start_s: float
    end_s: float
    labels: list[str]
    caption: str | None = None


class Truth(BaseModel):
    """What a file truly holds: what the page reads of a row of `truth.jsonl`."""

    path: str
    labels: list[str]
    minutes: list[Minute]
    caption: str | None = None


@dataclass
class Scores:
    """Sound kinds named in the answers against the truth."""

    right: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def f1(self) -> float | None:
        """2·right / (2·right + missed + wrong); None when nothing was compared."""
        total = 2 * self.right + self.missed + self.wrong
        return 2 * self.right / total if total else None


@dataclass
class Totals:
    """Counts over all answers, shown on the page or not."""

    rows: int = 0
    files: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    scores: Scores = field(default_factory=Scores)


@dataclass
class ReportResult:
    """Where the page is, its size, what it counts, and the files on it as the template sees them."""

    uri: str
    size_bytes: int
    totals: Totals
    files: list[dict[str, Any]] = field(repr=False)
    previews: int


def write_report(
    answers: str,
    out_path: str,
    truth: str | Sequence[Mapping[str, Any]] | None = None,
    *,
    title: str = "MATS answers",
    max_files: int = 200,
    preview_seconds: float = 20.0,
    max_media_bytes: int = 8_500_000,
    workers: int = 1,
) -> ReportResult:
    """Write the report of any caption run.

    Args:
        answers: URI of a run's OUTPUT, or of its ``answers`` folder.
        out_path: URI of the page.
        truth: rows of ``mats_core.soundworld.archive``, or the path of their ``truth.jsonl``.
        title: heading of the page.
        max_files: of a larger archive, this many are shown: a fixed random sample, by a hash of the URI.
        preview_seconds: how much of a chunk can be listened to.
        max_media_bytes: pictures and previews together, as they weigh in the page; later rows go without.
        workers: decoding processes.

    Raises:
        SettingsError: there are no answers at ``answers``, ``truth`` is not what it should be, or no page can be
            written at ``out_path``. All this is known before anything is decoded.
    """
    folder, run = _find(answers)
    check_page(out_path)
    facts = _load_truth(truth)
    totals, chosen = _survey(folder, max_files)
    files = _gather(folder, chosen)
    root = _common_root([str(file["uri"]) for file in files])
    for file in files:
        _describe(file, root, facts, totals.scores)
    previews = add_media(files, preview_seconds, max_media_bytes, workers)
    page = _render(files, totals, run, title, facts is not None, preview_seconds)
    data = page.encode("utf-8")
    storage.write_bytes(out_path, data)
    return ReportResult(out_path, len(data), totals, files, previews)


def _find(answers: str) -> tuple[str, dict[str, Any]]:
    """The answers' folder and `_run.json` (empty when there is none)."""
    parent = answers.rstrip("/").rpartition("/")[0] or "."
    for folder, output in ((storage.join(answers, "answers"), answers), (answers, parent)):
        if not storage.is_dir(folder):
            continue
        if parquet.files(folder):
            uri = storage.join(output, "_run.json")
            return folder, json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    raise got_allowed("answers", public_uri(answers), "the OUTPUT of `mats caption`, with answers in it")


def check_page(out: str) -> None:
    """SettingsError where no page can be written. Leaves nothing there."""
    why = _unwritable(out)
    if why:
        raise got_allowed("out", public_uri(out), f"a file that can be written; {why}")


def _unwritable(out: str) -> str:
    """Why no file can be written there, or "". A store is only asked what it has."""
    path = local_path(out)
    if path is None:
        if scheme(out) in READ_ONLY:
            return f"{scheme(out)}:// is read-only"
        try:
            return "this is a folder" if storage.is_dir(out) else ""
        except storage.StorageError as error:
            return str(error)
    if os.path.exists(path) and not os.path.isfile(path):
        return "this is a folder or a device"
    folder = os.path.dirname(path)
    while not os.path.exists(folder):  # these are made with the page
        folder = os.path.dirname(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):  # note: permissions do not tell, as in /proc
            return ""
    except OSError:
        return f"none can be made in {printable(folder)}"


def _batches(folder: str, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows of a Parquet folder, a batch at a time; columns that are not there are left out."""
    for info in parquet.files(folder):
        for batch in parquet.batches(info.uri, 8192, columns):
            yield batch.to_pylist()


def _survey(folder: str, max_files: int) -> tuple[Totals, set[str]]:
    """Totals over all rows, and the URIs to show: those of the smallest hashes."""
    totals = Totals()
    seen: set[int] = set()
    heap: list[tuple[int, str]] = []
    for rows in _batches(folder, ("uri", "decoded_s", "error_code")):
        for row in rows:
            totals.rows += 1
            totals.seconds += row.get("decoded_s") or 0.0
            if row.get("error_code"):
                totals.errors[row["error_code"]] += 1
            uri = row.get("uri") or ""
            key = int.from_bytes(blake2b(uri.encode("utf-8", "replace"), digest_size=8).digest(), "big")
            if key in seen:
                continue
            seen.add(key)
            if len(heap) < max_files:
                heapq.heappush(heap, (-key, uri))
            elif -key > heap[0][0]:
                heapq.heapreplace(heap, (-key, uri))
    totals.files = len(seen)
    return totals, {uri for _, uri in heap}


def _gather(folder: str, chosen: set[str]) -> list[dict[str, Any]]:
    """The chosen files with their rows, in the order of the work list."""
    by_uri: dict[str, list[dict[str, Any]]] = {}
    for rows in _batches(folder, (*FILE_COLUMNS, *PART_COLUMNS)):
        for row in rows:
            if (row.get("uri") or "") in chosen:
                by_uri.setdefault(row.get("uri") or "", []).append(row)
    for parts in by_uri.values():
        parts.sort(key=lambda row: (row.get("start_s") or 0.0, row.get("row_id") or 0))
    order = sorted(by_uri.items(), key=lambda item: min(row.get("row_id") or 0 for row in item[1]))
    return [{"uri": uri, "parts": parts} for uri, parts in order]


def _plain(uri: str) -> str:
    """A URI as path text (a local name that is not UTF-8 with Python's surrogates), without secrets."""
    path = local_path(uri)
    return public_uri(uri) if path is None else os.fsdecode(path)


def _shown(name: str) -> str:
    """Path text as a page can hold it: percent-encoded where it is not UTF-8."""
    return printable(os.fsencode(name))


def _common_root(uris: list[str]) -> str:
    """The folder that all files share, with "/" at its end ("" when there is none)."""
    folders = [_plain(uri).split("/")[:-1] for uri in uris]
    shared = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "/".join([*shared, ""])


def _load_truth(truth: str | Sequence[Mapping[str, Any]] | None) -> dict[str, Truth] | None:
    """What is true, by path. Raises SettingsError that tells the first wrong line, and what is wrong with it."""
    if truth is None:
        return None
    if not isinstance(truth, str):
        return {row.path: row for row in (checked(Truth, each, "truth") for each in truth)}
    facts = {}
    number = 0
    try:
        for line in storage.read_bytes(truth).decode("utf-8").split("\n"):
            number += 1
            if line.strip():
                row = Truth.model_validate_json(line)
                facts[row.path] = row
        return facts
    except ValidationError as error:
        first = error.errors()[0]
        where = ", ".join(str(part) for part in (f"line {number}", *first["loc"]))
        why = f"{where}: {first['msg'].partition(' at line ')[0]}"
    except (ValueError, storage.StorageError) as error:
        why = str(error)
    raise got_allowed("truth", public_uri(truth), f"the truth.jsonl of an archive ({why})")


def _truth_of(uri: str, facts: Mapping[str, Truth]) -> Truth | None:
    """The truth whose path ends the URI."""
    parts = _plain(uri).split("/")
    paths = (_shown("/".join(parts[start:])) for start in range(len(parts)))
    return next((facts[path] for path in paths if path in facts), None)


def _describe(
    file: dict[str, Any],
    root: str,
    facts: Mapping[str, Truth] | None,
    scores: Scores,
) -> None:
    """Add what the template shows of a file: names, facts, and labels right, missed and wrong by part."""
    name = _shown(_plain(str(file["uri"])).removeprefix(root))
    folder, _, base = name.rpartition("/")
    parts = file["parts"]
    first = parts[0]
    known = _truth_of(str(file["uri"]), facts) if facts is not None else None
    own = Scores()
    for part in parts:
        part["start"] = part.get("start_s") or 0.0
        heard = part.get("decoded_s")
        part["length"] = heard if heard is not None else part.get("duration_s")
        whole = part.get("duration_s")
        part["broke_off"] = heard is not None and whole is not None and heard < whole - 0.1
        part["labels"] = []
        if known is not None and not part.get("error_code"):
            _compare(part, known, own)
    scores.right += own.right
    scores.missed += own.missed
    scores.wrong += own.wrong
    lengths = [part["start"] + (part.get("duration_s") or part.get("decoded_s") or 0.0) for part in parts]
    failed = [part for part in parts if part.get("error_code")]
    file.update(
        folder=folder,
        name=base,
        length=max(lengths) if any(lengths) else None,
        format=first.get("format"),
        sample_rate=first.get("sample_rate"),
        channels=first.get("channels"),
        failed=len(failed) == len(parts),
        broken=bool(failed) or any(part["broke_off"] for part in parts),
        f1=own.f1,
        slips=own.missed + own.wrong,
    )
    words = [name, *(str(part.get(k) or "") for part in parts for k in ("text", "truth", "error_code"))]
    file["search"] = " ".join(words).lower()


def _compare(part: dict[str, Any], known: Truth, scores: Scores) -> None:
    """Put the truth of this part beside it; for tasks that name sounds, each label with its mark."""
    start = part["start"]
    end = start + (part["length"] or 0.0)
    minutes = [m for m in known.minutes if m.start_s < end - 0.5 and m.end_s > start + 0.5]
    pieces: Sequence[Minute | Truth] = minutes or [known]
    part["truth"] = " ".join(piece.caption for piece in pieces if piece.caption)
    if part.get("task") not in (None, *LABEL_TASKS):
        return
    true = list(dict.fromkeys(label for piece in pieces for label in piece.labels))
    named = parse_kinds(part.get("text") or "")
    marks = [(kind, "right" if kind in named else "missed") for kind in true]
    marks += [(kind, "wrong") for kind in named if kind not in true]
    part["labels"] = [(WORDS[kind].label if kind in WORDS else kind, mark) for kind, mark in marks]
    scores.right += sum(mark == "right" for _, mark in marks)
    scores.missed += sum(mark == "missed" for _, mark in marks)
    scores.wrong += sum(mark == "wrong" for _, mark in marks)


def add_media(files: list[dict[str, Any]], preview_seconds: float, max_bytes: int, workers: int) -> int:
    """Decode the originals and add ``picture`` and ``sound`` data URIs to the parts; returns how many."""
    parts = [(str(f["uri"]), p) for f in files for p in f["parts"] if not p.get("error_code")]
    weight = count = 0
    if not parts:
        return 0
    with IsolatedDecoder(workers=workers, sample_rate=preview.SAMPLE_RATE, limits=DecodeLimits()) as decoder:
        for at in range(0, len(parts), DECODE_BATCH):
            batch = parts[at : at + DECODE_BATCH]
            requests = [
                DecodeRequest(uri, part["start"], min(part["length"] or CHUNK_SECONDS, CHUNK_SECONDS))
                for uri, part in batch
            ]
            for (_, part), decoded in zip(batch, decoder.decode_many(requests), strict=True):
                samples = getattr(decoded, "samples", None)
                if samples is None or len(samples) == 0:
                    continue  # moved or changed since it was answered: the row is shown without
                picture, sound = _media(samples, preview_seconds)
                if weight + len(picture) + len(sound) > max_bytes:
                    return count
                weight += len(picture) + len(sound)
                shown_s = len(samples) / preview.SAMPLE_RATE
                part.update(picture=picture, sound=sound, shown_s=shown_s)
                part["heard_share"] = min(1.0, preview_seconds / shown_s)
                count += 1
    return count


def _media(samples: np.ndarray, seconds: float) -> tuple[str, str]:
    picture = base64.b64encode(preview.spectrogram_webp(samples)).decode("ascii")
    sound = base64.b64encode(preview.preview_mp3(samples, seconds)).decode("ascii")
    return f"data:image/webp;base64,{picture}", f"data:audio/mpeg;base64,{sound}"


def clock(seconds: float | None) -> str:
    """3.24 → "3.2 s", 75 → "1:15", 4000 → "1:06:40"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _ticks(shown_s: float, start_s: float = 0.0) -> list[tuple[float, str]]:
    """Times to write below a spectrogram of this length: (share of the width, text), from its start in the file."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if shown_s / s <= 6.5), 60)
    times = np.arange(0, shown_s - step * 0.35, step)
    if start_s + shown_s > 61:
        return [(float(t / shown_s), clock(start_s + t) if start_s + t >= 60 else f"0:{t:02.0f}") for t in times]
    return [(float(t / shown_s), f"{start_s + t:g}" + (" s" if i == 0 else "")) for i, t in enumerate(times)]


def page_environment() -> jinja2.Environment:
    """Templates of all our pages, with the filters clock and ticks."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    environment.filters["ticks"] = _ticks
    return environment


def _render(
    files: list[dict[str, Any]],
    totals: Totals,
    run: Mapping[str, Any],
    title: str,
    has_truth: bool,
    preview_seconds: float,
) -> str:
    environment = page_environment()
    absent = dict.fromkeys((*PART_COLUMNS, "picture", "sound", "truth"))
    for file in files:
        file["parts"] = [absent | part for part in file["parts"]]
    return environment.get_template("report.html.j2").render(
        title=title,
        files=files,
        totals=totals,
        run=run,
        has_truth=has_truth,
        preview_seconds=preview_seconds,
        pitches=[(preview.height_of(hertz), label) for hertz, label in PITCHES],
    )
