"""Corpus files → records: JSON lists, {"annotation": […]}, JSONL, CSV and Parquet, read as streams from any URL.

A record that cannot be used is counted by its file with its line and never ends the reading; a file whose rest cannot
be read (a broken JSON list, no such column) raises SettingsError. What makes a record usable is in `corpus_record`;
how the formats are taken apart is in `corpus_formats`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mats_core import storage
from mats_core.errors import SettingsError
from mats_core.model.prompts import FAMILIES, SPEECH, has_surrogate

CORPUS_ENDINGS = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".parquet"})
FIELDS = ("caption", "instruction", "output", "task", "tag", "source", "id")
MOST_LINES = 1000
"""Bad lines a file's report names; the counts go on."""

_SPACE = re.compile(r"\s+")


@dataclass
class FileReport:
    """What was found in one file: `records` in all, `problems` by code, and where the first MOST_LINES are. `line` is
    where the record stands that was read last.

    Codes: broken_line (no line of JSON or CSV), not_an_object, missing_caption, missing_output, missing_instruction (of
    a question), unknown_task, wrong_type (no text), not_text (no Unicode), reserved_text (the sound's place in a
    prompt), duplicate_id (within the file), no_embedding (training: a caption that the embeddings do not have).
    """

    uri: str
    records: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    lines: list[dict[str, Any]] = field(default_factory=list)
    line: int = 0

    @property
    def bad(self) -> int:
        """Records that cannot be used."""
        return sum(self.problems.values())

    def add(self, line: int, code: str, detail: str = "") -> None:
        """Count a record that cannot be used."""
        self.problems[code] += 1
        if len(self.lines) < MOST_LINES:
            self.lines.append({"line": line, "code": code, "detail": detail[:200]})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "file": storage.public_uri(self.uri),
            "records": self.records,
            "bad": self.bad,
            "problems": dict(sorted(self.problems.items())),
            "lines": self.lines,
        }


def normalize_caption(text: str) -> str:
    """NFC, stripped, every run of white space one space: captions equal after this are the same caption."""
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def join_captions(texts: Sequence[str]) -> str:
    """The captions of a long sound's windows as one text: a line each, normalised, without those that say nothing."""
    return "\n".join(filter(None, map(normalize_caption, texts)))


def split_captions(caption: str) -> str | list[str]:
    """A record's caption as its file has it: the inverse of `join_captions`."""
    lines = caption.split("\n")
    return lines if len(lines) > 1 else caption


def caption_id(text: str) -> str:
    """32 hexadecimal digits that name a caption (or several, joined), the same for all spellings of it."""
    return hashlib.blake2b(join_captions(text.split("\n")).encode(), digest_size=16).hexdigest()


def corpus_files(corpora: str | Sequence[str], setting: str = "corpus") -> list[storage.FileInfo]:
    """The files that paths, folders, globs and URLs mean, in a stable order, each once.

    Raises SettingsError (named after `setting`) when one is missing, empty, or of no known format.
    """
    found: dict[str, storage.FileInfo] = {}
    endings = ", ".join(sorted(CORPUS_ENDINGS))
    for uri in [corpora] if isinstance(corpora, str) else corpora:
        shown = storage.public_uri(uri)
        if not uri.strip():
            raise SettingsError(setting, "nothing is named", "give a path or URL (. is the folder you are in)")
        try:
            listed = storage.list_files(uri, CORPUS_ENDINGS)
            files = [info for info in listed if not _is_aside(info.path)]
        except storage.StorageError as error:
            raise SettingsError(setting, f"{shown} cannot be read ({error})", "give files that can") from None
        if not files:
            raise SettingsError(setting, f"{shown} has no corpus files in it", f"give files that end in {endings}")
        for info in files:
            if ending(info.uri) not in CORPUS_ENDINGS:
                problem = f"{storage.public_uri(info.uri)} is of no format that is known"
                raise SettingsError(setting, problem, f"give a file that ends in {endings}")
            found.setdefault(info.uri, info)
    return list(found.values())


def _is_aside(path: str) -> bool:
    """Whether a file, or a folder that it is in, is named as what is no data (`_state`, `.cache`)."""
    return any(name.startswith(("_", ".")) for name in path.split("/"))


def ending(uri: str) -> str:
    """The file's ending, lower case, without a URL's query."""
    return posixpath.splitext(storage.public_uri(uri))[1].lower()


def check_columns(columns: Mapping[str, str], setting: str = "columns") -> dict[str, str]:
    """A mapping of our fields to theirs; raises SettingsError for a field that is not ours."""
    for name in columns:
        if name not in FIELDS:
            remedy = f"write our field = their name; our fields are {', '.join(FIELDS)}"
            raise SettingsError(setting, f'"{name}" is no field of ours', remedy)
    return dict(columns)


def read_corpus(
    uri: str,
    report: FileReport,
    columns: Mapping[str, str] | None = None,
    complete: bool = True,
    task: str | None = None,
) -> Iterator[dict[str, str]]:
    """Usable records of one file, as they come: caption_id, caption (normalised) and the other fields but id.

    A caption that is a list stands for a long sound, one caption for each of its windows; it comes as `join_captions`.
    columns: our field → theirs ("" leaves one out). complete: a record must have an output and, for QA, its question;
    otherwise only what is there must be right. task: of records that name none ("caption" where that is None too).
    source: the record's, else the file's name without its ending. Ids are compared as text (1 is "1"), within the file
    alone. All that is seen is counted in `report`.
    Raises SettingsError where the file as a whole cannot be read.
    """
    from pipelines.data.corpus_formats import Broken, raw_records

    names = {name: name for name in FIELDS} | check_columns(columns or {})
    wanted = {name: theirs for name, theirs in names.items() if theirs}
    stem = posixpath.splitext(posixpath.basename(storage.public_uri(uri)))[0]
    seen: set[bytes] = set()
    for line, value in raw_records(uri, ending(uri), wanted):
        report.records, report.line = report.records + 1, line
        if isinstance(value, Broken):
            report.add(line, value.code, value.detail)
            continue
        given = {name: value.get(theirs) for name, theirs in wanted.items()}
        record = corpus_record(given, complete, task, stem)
        if isinstance(record, tuple):
            report.add(line, *record)
            continue
        if given.get("id") is not None:
            key = hashlib.blake2b(str(given["id"]).encode("utf-8", "replace"), digest_size=8).digest()
            if key in seen:
                report.add(line, "duplicate_id", str(given["id"]))
                continue
            seen.add(key)
        yield record


def corpus_record(
    given: Mapping[str, Any], complete: bool = True, task: str | None = None, source: str = ""
) -> dict[str, str] | tuple[str, str]:
    """A record out of its raw fields, or (problem code, detail)."""
    texts: dict[str, str] = {}
    windows = given.get("caption")
    if isinstance(windows, list) and all(isinstance(text, str) for text in windows):
        given = {**given, "caption": "\n".join(windows)}
    else:
        windows = None
    for name in FIELDS[:-1]:
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            return "wrong_type", f"{name} is {type(value).__name__}: {value!r}"
        texts[name] = value or ""
    broken = next((name for name, text in texts.items() if has_surrogate(text)), None)
    if broken is not None:
        return "not_text", broken
    reserved = next((name for name in ("instruction", "tag") if SPEECH in texts[name]), None)
    if reserved is not None:
        return "reserved_text", f"{reserved} holds {SPEECH}, which stands for the sound"
    caption = normalize_caption(texts["caption"]) if windows is None else join_captions(windows)
    if not caption:
        there = ", ".join(sorted(name for name, value in given.items() if value is not None))
        return "missing_caption", f"it has {there or 'nothing'}"
    kind = texts["task"].strip() or task or "caption"
    family = FAMILIES.get(kind.lower())
    if family is None:
        return "unknown_task", kind
    if not texts["output"].strip() and (complete or given.get("output") is not None):
        return "missing_output", ""
    asked = complete or given.get("instruction") is not None
    if family == "QA" and asked and not texts["instruction"].strip():
        return "missing_instruction", kind
    given_texts = {name: text.strip() for name, text in texts.items()}
    of_record = {"caption": caption, "task": kind, "source": given_texts["source"] or source}
    return {"caption_id": caption_id(caption), **given_texts, **of_record}


def check_error_rate(reports: Sequence[FileReport], most: float, setting: str = "max_error_rate") -> None:
    """SettingsError when more than the share `most` of all records is bad; names the worst file and its first line."""
    records, bad = sum(each.records for each in reports), sum(each.bad for each in reports)
    if bad <= most * records:
        return
    worst = max(reports, key=lambda each: each.bad)
    why = ", ".join(f"{code} {count}" for code, count in sum((r.problems for r in reports), Counter()).most_common())
    first = worst.lines[0]
    detail = f" ({first['detail']})" if first["detail"] else ""
    raise SettingsError(
        setting,
        f"{bad} of {records} records cannot be used ({why}), most of them in {storage.public_uri(worst.uri)}, first in "
        f"line {first['line']}: {first['code']}{detail}; {most:.2%} may be",
        f"mend the corpora, or allow {bad / records:.2%}",
    )
