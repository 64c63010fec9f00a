"""Readers of data sets as their publishers ship them.

read_table      `reader: table`, a CSV or TSV file, one line an item or several
read_records    `reader: records`, a JSON list of objects
read_names      `reader: names`, labels that stand in the names of the audio files
"""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import Any, Literal

from pydantic import Field

from pipelines.evaluate.datasets.definition import MMAU
from pipelines.evaluate.datasets.folder import Folder, FoundItems
from pipelines.published.folder import AS_PUBLISHED
from pipelines.published.layouts import NameLayout, RecordLayout, TableLayout
from pipelines.published.tables import Row, objects, table

ENDINGS = (".wav", ".au", ".flac", ".mp3", ".ogg", ".m4a")


class TableOptions(TableLayout):
    """Which columns say what."""

    references: list[str] = Field(default_factory=list, description="Columns with a caption each.")
    vote: str | None = Field(None, description="Column with one annotator's answer; the lines of an item vote.")
    agree: Literal["majority", "unanimous", "first"] = Field("majority", description="Which answer counts.")
    category: str | None = Field(None, description="Column with a category, or `vote` to tell yes/no from words.")
    label_table: list[str] | None = Field(
        None, description="The file `labels` holds the label set: its columns, the one called `label` counts."
    )


def read_table(folder: Folder) -> FoundItems:
    """Items of a table; see `TableOptions`."""
    options = folder.options(TableOptions)
    category = options.category if options.category != "vote" else None
    named = (options.label, options.question, options.vote, category)
    needed = folder.columns(options.id, *options.keep, *options.references, *named)
    found = FoundItems(folder)
    if options.label_table:
        found.labels = [row["label"] for _, row in table(folder, "labels", ",", options.label_table, ["label"])]
    groups: dict[str, list[Row]] = {}
    path = folder.path("table") or "table"
    for line, row in table(folder, "table", options.separator, options.header, needed, options.more_columns):
        if not options.label_table:
            found.labels += [label for label in options.labels_of(row) if label not in found.labels]
        if not options.keeps(row):
            continue
        item_id = folder.filled(f"{path}:{line}", options.id, row)
        if not options.group:
            found.check_new(item_id, f"{path}:{line}")
        groups.setdefault(item_id, []).append(row)
    for item_id, rows in groups.items():
        _add(found, options, item_id, rows)
    found.labels = found.labels if options.label_table else sorted(set(found.labels))
    return found


def _add(found: FoundItems, options: TableOptions, item_id: str, rows: list[Row]) -> None:
    first = rows[0]
    labels = list(dict.fromkeys(label for row in rows for label in options.labels_of(row)))
    category = first[options.category] if options.category and options.category != "vote" else ""
    if options.vote:
        answer = _vote([row[options.vote] for row in rows], options.agree)
        if answer is None:
            found.left_out.append((item_id, f"the annotators do not agree ({options.agree})"))
            return
        labels = [answer]
        found.labels.append(answer)  # note: whether its audio is there or not, so that every copy has the same labels
        if options.category == "vote":
            category = "yes or no" if answer in ("yes", "no") else "words"
    references = tuple(row[column] for row in rows for column in options.references if row[column])
    if options.references and not references:
        found.left_out.append((item_id, "no reference caption"))
        return
    question = first[options.question] if options.question else ""
    found.add(item_id, first, question=question, references=references, labels=tuple(labels), category=category)


def _vote(answers: list[str], agree: str) -> str | None:
    """The answer that counts, in lower case; None where the annotators do not agree as much as they must."""
    plain = [answer.strip().lower() for answer in answers]
    if agree == "first":
        return plain[0]
    best, count = Counter(plain).most_common(1)[0]
    enough = count == len(plain) if agree == "unanimous" else 2 * count > len(plain)
    return best if enough else None


class RecordOptions(RecordLayout):
    """Which fields say what."""

    question: str | None = Field(None, description="Field with the question.")
    references: list[str] = Field(default_factory=list, description="Fields with a right answer each.")
    choices: str | None = Field(None, description="Field with the list of options.")
    answer: str | None = Field(None, description="Field with the right option.")
    answers_withheld: bool = Field(False, description="The publisher keeps the answers: items have none.")
    category: str | None = Field(None, description="Field with a category.")
    extra: list[str] = Field(default_factory=list, description="Fields that the judge's file repeats.")


def read_records(folder: Folder) -> FoundItems:
    """Items of a JSON list; see `RecordOptions`.

    A question whose options or answer make it impossible to score is left out and named.
    """
    options = folder.options(RecordOptions)
    path = folder.needed("records")
    found = FoundItems(folder)
    codes: dict[str, str] | None = None
    if options.label_table:
        code, name = options.label_table
        codes = {row[code]: row[name] for _, row in table(folder, "labels", ",", None, [code, name])}
        found.labels = list(codes.values())
    answer = None if options.answers_withheld else options.answer
    named = (options.question, options.label, options.choices, options.category, answer)
    needed = folder.columns(options.id, *options.keep, *options.references, *options.extra, *named)
    for index, record in objects(folder, path, options.under):
        where = f"{path}[{index}]"
        absent = [name for name in needed if name not in record and name != "index"]
        if absent:
            problem = f"no field {', '.join(absent)} among {', '.join(record)}"
            raise folder.wrong(where, problem, AS_PUBLISHED)
        if not options.keeps(record):
            continue
        item_id = folder.filled(where, options.id, record | {"index": index})
        found.check_new(item_id, where)
        if folder.definition.judge == MMAU:
            found.records.append((item_id, record))
        facts, why = _facts(folder, options, where, record, codes)
        if why:
            found.left_out.append((item_id, f"{why} ({where})"))
            continue
        if options.label and codes is None and facts["labels"][0] not in found.labels:
            found.labels += facts["labels"]
        found.add(item_id, record, **facts)
    return found


def _facts(
    folder: Folder, options: RecordOptions, where: str, record: dict[str, Any], codes: dict[str, str] | None
) -> tuple[dict[str, Any], str]:
    """Fields of an item, and why it cannot be asked or scored ("" where it can)."""
    facts: dict[str, Any] = {
        "question": record[options.question] if options.question else "",
        "references": tuple(str(record[name]).strip() for name in options.references if str(record[name]).strip()),
        "category": str(record[options.category]) if options.category else "",
        "extra": {name: record[name] for name in options.extra},
    }
    if options.label:
        code = str(record[options.label])
        if codes is not None and code not in codes:
            problem = f'"{code}" is not a label of {folder.path("labels")} ({", ".join(codes)})'
            raise folder.wrong(where, problem, AS_PUBLISHED)
        facts["labels"] = (codes[code] if codes is not None else code,)
    if options.choices:
        given = record[options.choices]
        # note: publishers repeat options here and there; the question is put with each once
        choices = tuple(dict.fromkeys(str(choice).strip() for choice in given)) if isinstance(given, list) else ()
        answer = str(record.get(options.answer or "", "")).strip()
        facts |= {"choices": choices, "answer": answer if answer in choices else ""}
        if len(choices) < 2:
            return facts, f"fewer than two different options: {given}"
        if not options.answers_withheld and answer not in choices:
            return facts, f'answer not among its options: "{answer}" of {", ".join(choices)}'
    return facts, ""


def read_names(folder: Folder) -> FoundItems:
    """An item for every audio file whose path fits; audio files whose path does not are left out, and named."""
    options = folder.options(NameLayout)
    found = FoundItems(folder)
    for path in sorted(folder.found):
        if posixpath.splitext(path)[1].lower() not in ENDINGS or options.skips(path):
            continue
        label = options.label_of(path)
        if label is None:
            found.left_out.append((path, "its name does not say a label"))
            continue
        found.check_new(path, path)
        found.labels.append(label)
        found.add(path, {"path": path}, labels=(label,))
    found.labels = sorted(set(found.labels))
    return found
