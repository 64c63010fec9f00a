"""CSV and TSV files: a line a clip, or a label, an event or an annotator's answer of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from pipelines.corpus.clips import Asked, Event, PublishedClip
from pipelines.published.folder import Folder, columns_of
from pipelines.published.layouts import TableLayout
from pipelines.published.origins import origin_of, origin_rows
from pipelines.published.tables import Row, table
from pipelines.settings.base import Settings


class LabelFile(Settings):
    """The file `labels`: which column has a label's code, and which its name."""

    separator: str = ","
    header: list[str] | None = None
    code: str
    name: str


class TableOptions(TableLayout):
    """Which columns say what."""

    tables: list[str] = Field(["table"], description="Roles of the files, read one after the other.")
    optional: list[str] = Field(default_factory=list, description="Those of them that may be missing.")
    quotes: bool | None = Field(None, description="Cells may stand in quotes (default: where a comma separates them).")
    captions: list[str] = Field(default_factory=list, description="Columns with a caption each.")
    answer: str | None = Field(None, description="Column with the answer to the question.")
    label_file: LabelFile | None = Field(None, description="Labels are codes; a file has their names.")
    flags: bool = Field(False, description="Every column with 0 or 1 is a label.")
    start: str | None = Field(None, description="Column with the second in which the label's event begins.")
    end: str | None = Field(None, description="Column with the second in which it ends.")
    timed: list[str] | None = Field(None, description="Files whose seconds are of the clip (default: all).")
    level: str | None = Field(None, description="Column that tells how the label is heard.")
    levels: dict[str, str] = Field(default_factory=dict, description="What is in it → foreground or background.")
    at_least: dict[str, float] = Field(default_factory=dict, description="Column → number from which a line counts.")
    only: str | None = Field(None, description="Role of a file with the ids of the training part, one a line.")

    def columns(self) -> list[str]:
        """The columns that must be there."""
        named = (*self.keep, *self.captions, *self.at_least, self.label, self.question, self.answer, self.level)
        return [*columns_of(self.id), *filter(None, (*named, self.start, self.end))]


@dataclass
class _Draft:
    """What is known of a clip so far."""

    origin: dict[str, str]
    labels: dict[str, None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    questions: list[Asked] = field(default_factory=list)
    level: str = ""

    def clip(self, clip_id: str, definition: Any) -> PublishedClip:
        self.events.sort(key=lambda event: (event.start_s, event.end_s))
        parts = tuple(self.labels), tuple(self.events), tuple(self.captions), tuple(self.questions)
        return PublishedClip(clip_id, definition.name, definition.split, *parts, self.level)


def read_table(folder: Folder) -> Iterator[tuple[PublishedClip, dict[str, str]]]:
    """Clips of a table; see `TableOptions`."""
    options = folder.options(TableOptions)
    reading = _Reading(folder, options)
    drafts: dict[str, _Draft] = {}
    for role in options.tables:
        if role in options.optional and folder.path(role) is None:
            continue
        path, timed = folder.needed(role), options.timed is None or role in options.timed
        rows = table(
            folder, role, options.separator, options.header, reading.needed, options.more_columns, quotes=options.quotes
        )
        for line, row in rows:
            where = f"{path}:{line}"
            clip_id = folder.filled(where, options.id, row) if options.keeps(row) else None
            if clip_id is None or (reading.only is not None and clip_id not in reading.only):
                continue
            draft = drafts.get(clip_id) if options.group else None
            if draft is None:
                draft = _Draft(reading.origin(row, where))
                if options.group:
                    drafts[clip_id] = draft
            if all(_number(folder, where, row, name) >= least for name, least in options.at_least.items()):
                reading.add(draft, where, row, timed)
            if not options.group:
                yield draft.clip(clip_id, folder.definition), draft.origin
    while drafts:  # note: each is let go as it is given
        clip_id = next(iter(drafts))
        draft = drafts.pop(clip_id)
        yield draft.clip(clip_id, folder.definition), draft.origin


class _Reading:
    """What the other files of a set say, and how a row adds to a clip."""

    def __init__(self, folder: Folder, options: TableOptions) -> None:
        definition = folder.definition
        self.folder, self.options = folder, options
        self.elsewhere = origin_rows(folder)
        self.keywords: str = getattr(definition, "keywords", "")
        self.codes: dict[str, str] | None = None
        if options.label_file is not None:
            file = options.label_file
            rows = table(folder, "labels", file.separator, file.header, [file.code, file.name])
            self.codes = {row[file.code]: row[file.name] for _, row in rows}
        self.only: set[str] | None = None
        if options.only is not None:
            self.only = {row["id"] for _, row in table(folder, options.only, ",", ["id"], ["id"])}
        here = () if definition.origin_file else definition.origin.values()
        by_name = ["file_name"] if definition.origin_file else []
        self.needed = [*options.columns(), *by_name, *(name for template in here for name in columns_of(template))]

    def origin(self, row: Row, where: str) -> dict[str, str]:
        """Where a clip comes from; as `name`, what its publisher calls its file."""
        if not self.folder.definition.origin_file:
            return origin_of(self.folder, row, where)
        told = self.elsewhere.get(row["file_name"])
        found = {} if told is None else origin_of(self.folder, told, where)
        return {**found, "name": row["file_name"].rpartition(".")[0]}

    def add(self, draft: _Draft, where: str, row: Row, timed: bool) -> None:
        """What a row tells of a clip."""
        options = self.options
        labels = options.labels_of(row)
        if options.flags:
            labels = [name for name, cell in row.items() if cell == "1" and name not in columns_of(options.id)]
        if self.codes is not None:
            labels = [self._name(code, where) for code in labels]
        if self.keywords and not draft.labels:
            told = self.elsewhere.get(row["file_name"], {}).get(self.keywords, "")
            labels = [word.strip() for word in told.split(";") if word.strip()]
        draft.labels.update(dict.fromkeys(labels))
        if options.start and options.end and timed:
            start, end = (_number(self.folder, where, row, name) for name in (options.start, options.end))
            if end > start:  # note: DCASE writes 0 and 0 where nobody told the times
                draft.events += (Event(label, start, end) for label in labels)
        if options.level:
            draft.level = options.levels.get(row[options.level], "")
        draft.captions += (row[name] for name in options.captions if row[name])
        if options.question and options.answer and row[options.question] and row[options.answer]:
            asked = Asked(row[options.question], row[options.answer], self.folder.definition.task)
            draft.questions.append(asked)

    def _name(self, code: str, where: str) -> str:
        assert self.codes is not None
        if code not in self.codes:
            problem = f'"{code}" is not a label of {self.folder.path("labels")} ({len(self.codes)} labels)'
            raise self.folder.wrong(where, problem)
        return self.codes[code]


def _number(folder: Folder, where: str, row: Row, name: str) -> float:
    try:
        return float(row[name])
    except ValueError:
        raise folder.wrong(where, f'{name} is "{row[name]}", which is no number') from None
