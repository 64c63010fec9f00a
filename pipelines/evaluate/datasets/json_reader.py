"""Reader `records`: data sets that come as a JSON list of objects."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pipelines.evaluate.datasets.definition import MMAU
from pipelines.evaluate.datasets.folder import AS_PUBLISHED, Folder, FoundItems, columns_of, json_list, table
from pipelines.settings.base import Settings


class RecordOptions(Settings):
    """Which fields say what."""

    under: str | None = Field(None, description="Key of the list, where the file is an object.")
    id: str = Field(description="Template of an item's id; {index} is the place in the list.")
    keep: dict[str, list[str]] = Field(default_factory=dict, description="Field → values that are evaluated.")
    question: str | None = Field(None, description="Field with the question.")
    references: list[str] = Field(default_factory=list, description="Fields with a right answer each.")
    label: str | None = Field(None, description="Field with the label.")
    label_table: list[str] | None = Field(
        None, description="Columns to take from the file `labels`: the label's code in records, and its name."
    )
    choices: str | None = Field(None, description="Field with the list of options.")
    answer: str | None = Field(None, description="Field with the right option.")
    answers_withheld: bool = Field(False, description="The publisher keeps the answers: items have none.")
    category: str | None = Field(None, description="Field with a category.")
    extra: list[str] = Field(default_factory=list, description="Fields that the judge's file repeats.")


def read(folder: Folder) -> FoundItems:
    """Items of a JSON list; see `RecordOptions`.

    A question whose options or answer make it impossible to score is left out and named.
    """
    options = folder.options(RecordOptions)
    path, records = json_list(folder, "records", options.under)
    found = FoundItems(folder)
    codes: dict[str, str] | None = None
    if options.label_table:
        code, name = options.label_table
        codes = {row[code]: row[name] for _, row in table(folder, "labels", ",", None, [code, name])}
        found.labels = list(codes.values())
    answer = None if options.answers_withheld else options.answer
    named = [name for name in (options.question, options.label, options.choices, options.category, answer) if name]
    templates = [name for text in (options.id, *folder.definition.audio) for name in columns_of(text)]
    needed = dict.fromkeys((*templates, *options.keep, *options.references, *options.extra, *named))
    needed.pop("index", None)
    for index, record in enumerate(records):
        where = f"{path}[{index}]"
        absent = [name for name in needed if name not in record]
        if absent:
            problem = f"no field {', '.join(absent)} among {', '.join(record)}"
            raise folder.wrong(where, problem, AS_PUBLISHED)
        if any(str(record[name]) not in values for name, values in options.keep.items()):
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
