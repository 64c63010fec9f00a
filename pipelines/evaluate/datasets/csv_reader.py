"""Reader `table`: data sets that come as a CSV or TSV file, one line an item or several lines an item."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field

from pipelines.evaluate.datasets.folder import Folder, FoundItems, Row, columns_of, table
from pipelines.settings.base import Settings


class TableOptions(Settings):
    """Which columns say what."""

    separator: str = Field(",", description="Between the fields of a line.")
    header: list[str] | None = Field(None, description="Column names, where the file has no line of them.")
    more_columns: bool = Field(False, description="Lines may have more fields than the header has names.")
    id: str = Field(description="Template of an item's id.")
    group: bool = Field(False, description="Lines with the same id are one item (several captions, answers, labels).")
    keep: dict[str, list[str]] = Field(default_factory=dict, description="Column → values that belong to the split.")
    references: list[str] = Field(default_factory=list, description="Columns with a caption each.")
    label: str | None = Field(None, description="Column with the label.")
    label_separator: str | None = Field(None, description="Between several labels in that column.")
    question: str | None = Field(None, description="Column with the question.")
    vote: str | None = Field(None, description="Column with one annotator's answer; the lines of an item vote.")
    agree: Literal["majority", "unanimous", "first"] = Field("majority", description="Which answer counts.")
    category: str | None = Field(None, description="Column with a category, or `vote` to tell yes/no from words.")
    label_table: list[str] | None = Field(
        None, description="The file `labels` holds the label set: its columns, the one called `label` counts."
    )


def read(folder: Folder) -> FoundItems:
    """Items of a table; see `TableOptions`."""
    options = folder.options(TableOptions)
    category = options.category if options.category != "vote" else None
    named = [name for name in (options.label, options.question, options.vote, category) if name]
    templates = [name for template in (options.id, *folder.definition.audio) for name in columns_of(template)]
    needed = [*templates, *options.keep, *options.references, *named]
    found = FoundItems(folder)
    if options.label_table:
        found.labels = [row["label"] for _, row in table(folder, "labels", ",", options.label_table, ["label"])]
    groups: dict[str, list[Row]] = {}
    path = folder.path("table") or "table"
    for line, row in table(folder, "table", options.separator, options.header, needed, options.more_columns):
        if not options.label_table:
            found.labels += [label for label in _labels(row, options) if label not in found.labels]
        if any(row[column] not in values for column, values in options.keep.items()):
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
    labels = list(dict.fromkeys(label for row in rows for label in _labels(row, options)))
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


def _labels(row: Row, options: TableOptions) -> list[str]:
    if not options.label:
        return []
    parts = row[options.label].split(options.label_separator) if options.label_separator else [row[options.label]]
    return [part.strip() for part in parts if part.strip()]


def _vote(answers: list[str], agree: str) -> str | None:
    """The answer that counts, in lower case; None where the annotators do not agree as much as they must."""
    plain = [answer.strip().lower() for answer in answers]
    if agree == "first":
        return plain[0]
    best, count = Counter(plain).most_common(1)[0]
    enough = count == len(plain) if agree == "unanimous" else 2 * count > len(plain)
    return best if enough else None
