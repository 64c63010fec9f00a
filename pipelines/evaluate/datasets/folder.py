"""The folder of a data set: the files its definition names, where its audio lies, tables with their line numbers, and
what a reader collects of it: items with unique ids, whose audio is there; what is left out, and why."""

from __future__ import annotations

import csv
import io
import posixpath
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from mats_core import storage
from mats_core.audio.signatures import AUDIO_EXTENSIONS
from mats_core.errors import SettingsError, first_line
from mats_core.scoring import Item
from mats_core.storage import StorageError
from mats_core.storage.uris import Uri
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.settings.base import build

Options = TypeVar("Options", bound=BaseModel)
Row = dict[str, str]
"""A line of a table by its columns."""

NO_AUDIO = "audio not found"
AS_PUBLISHED = "put the file there as its publisher ships it"


class _Fields(string.Formatter):
    """`{column}` of a row; `{column:06d}` as a whole number, `{column:name}` and `{column:stem}` of a path."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = str(value)
        if format_spec.endswith("d"):
            return format(int(float(text)), format_spec)
        if format_spec == "name":
            return posixpath.basename(text)
        if format_spec == "stem":
            return posixpath.splitext(posixpath.basename(text))[0]
        return super().format_field(text, format_spec)


def columns_of(template: str) -> list[str]:
    """The columns that a template takes."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


@dataclass
class Folder:
    """The folder of one data set, listed once. found: path in it → URI, of every file; versions: URI → version."""

    definition: EvaluationSet
    uri: str
    found: dict[str, str]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        self._stems: dict[str, str] = {}
        for path in sorted(self.found):
            stem, ending = posixpath.splitext(path)
            if ending.lower() in AUDIO_EXTENSIONS:
                self._stems.setdefault(stem, path)

    def columns(self, template: str, *named: str | None) -> list[str]:
        """The columns that a template, the patterns of the audio and what is named take, each once."""
        templates = [name for each in (template, *self.definition.audio) for name in columns_of(each)]
        return list(dict.fromkeys([*templates, *filter(None, named)]))

    def path(self, role: str) -> str | None:
        """The path of a file the definition names, the first of its alternatives that is there; else None."""
        return next((path for path in self.definition.paths(role) if path in self.found), None)

    def read(self, role: str) -> tuple[str, str]:
        """(path, text) of a file the definition names; raises SettingsError when it is not there or is no UTF-8."""
        path = self.path(role)
        if path is None:
            problem = f"{' or '.join(self.definition.paths(role))} is not in {storage.public_uri(self.uri)}"
            raise self.wrong(role, problem, f"get it: {self.definition.source}")
        try:
            return path, storage.read_bytes(self.found[path]).decode("utf-8-sig")
        except (StorageError, UnicodeDecodeError) as error:
            problem = f"not a readable text file in UTF-8 ({first_line(error)})"
            raise self.wrong(path, problem, AS_PUBLISHED) from None

    def audio(self, fields: Mapping[str, Any]) -> tuple[str | None, str]:
        """(URI of an item's audio or None, why not), by the definition's patterns in turn.

        ``.*`` is any ending of an audio or video file. Raises SettingsError for fields that do not fit a pattern.
        """
        tried = []
        for pattern in self.definition.audio:
            path = posixpath.normpath(self.filled("audio", pattern, fields)).lstrip("/")
            tried.append(path)
            known = self._stems.get(path[:-2]) if path.endswith(".*") else path
            if known is not None and known in self.found:
                return self.found[known], ""
        return None, f"{NO_AUDIO}: {' or '.join(dict.fromkeys(tried))}"

    def filled(self, where: str, template: str, fields: Mapping[str, Any]) -> str:
        """A template with a row's fields put in; raises SettingsError for fields that do not fit it."""
        try:
            return _Fields().vformat(template, (), fields)
        except (ArithmeticError, LookupError, ValueError) as error:
            given = {name: fields[name] for name in columns_of(template) if name in fields}
            problem = f"{given} does not fit {template} ({first_line(error)})"
            raise self.wrong(where, problem, "repair that line, or the pattern in the definition") from None

    def options(self, kind: type[Options]) -> Options:
        """The reader's settings out of the definition; raises SettingsError naming the definition and the option."""
        try:
            return build(kind, self.definition.options)
        except SettingsError as error:
            raise self.wrong(f"options.{error.setting}", error.problem, error.remedy) from None

    def wrong(self, where: str, problem: str, remedy: str) -> SettingsError:
        """An error about a file of this data set, or a field of its definition."""
        return SettingsError(f"benchmarks: {self.definition.name}: {where}", problem, remedy)


def open_folder(definition: EvaluationSet, root: Uri) -> Folder:
    """List a data set's folder under ``root``; raises SettingsError when there is none."""
    uri = storage.join(root, definition.folder or definition.name)
    try:
        listed = list(storage.list_files(uri))
    except StorageError as error:
        remedy = f"get its files ({definition.source}), and name the folder that its folder is in with --data"
        problem = f"its folder {storage.public_uri(uri)} cannot be listed ({error.code})"
        raise SettingsError(f"benchmarks: {definition.name}", problem, remedy) from None
    found, versions = {info.path: info.uri for info in listed}, {info.uri: info.version for info in listed}
    return Folder(definition, uri, found, versions)


def table(
    folder: Folder, role: str, separator: str, header: Sequence[str] | None, needed: Sequence[str], more: bool = False
) -> Iterator[tuple[int, Row]]:
    """(line, row) of a CSV or TSV file with the columns `needed`.

    header: column names of a file that has none of its own. more: lines may have more fields than that, which are
    passed over. Raises SettingsError for missing columns and for lines with another number of fields, by line.
    """
    path, text = folder.read(role)
    quoting: Any = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, skipinitialspace=False)
    names = list(header) if header else None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise folder.wrong(f"{path}:{line}", f"a broken line ({error})", AS_PUBLISHED) from None
        if not any(cell.strip() for cell in row):
            continue
        if names is None:
            names = [name.strip() for name in row]
            absent = [name for name in needed if name not in names]
            if absent:
                raise folder.wrong(path, f"no column {', '.join(absent)} among {', '.join(names)}", AS_PUBLISHED)
            continue
        while len(row) > len(names) and not row[-1].strip():
            row.pop()  # note: TUT's lists end their lines with a separator
        if more:
            row = row[: len(names)]
        if len(row) != len(names):
            problem = f"{len(row)} fields where {len(names)} are expected ({', '.join(names)})"
            raise folder.wrong(f"{path}:{line}", problem, AS_PUBLISHED)
        yield line, {name: cell.strip() for name, cell in zip(names, row, strict=True)}
    if names is None:
        raise folder.wrong(path, f"an empty file, without the columns {', '.join(needed)}", AS_PUBLISHED)


@dataclass
class FoundItems:
    """Items of one folder, as a reader finds them: those whose audio is there.

    labels: those that occur anywhere in the reader's file. left_out: (item id, why) of items that cannot be asked.
    records: (item id, the publisher's record) of all items, where a file to submit must repeat them. places: item id →
    where in the reader's file it stands, of those that `check_new` has seen.
    """

    folder: Folder
    items: list[Item] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def check_new(self, item_id: str, where: str) -> None:
        """Raise SettingsError when an id was met before."""
        if item_id in self.places:
            problem = f"the id {item_id} is also at {self.places[item_id]}"
            raise self.folder.wrong(where, problem, "leave one of the two, or choose an id that tells items apart")
        self.places[item_id] = where

    def add(self, item_id: str, fields: Mapping[str, Any], **facts: Any) -> None:
        """An item whose audio is looked up by the definition's patterns; without audio it is left out."""
        definition = self.folder.definition
        uri, why = self.folder.audio(fields)
        if uri is None:
            self.left_out.append((item_id, why))
            return
        facts["question"] = str(facts.get("question") or "") or definition.question
        self.items.append(Item(item_id, uri, definition.task, tag=definition.tag, **facts))
