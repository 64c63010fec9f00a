"""The folder of a published set: the files its definition names, and errors that say which set and file they are of."""

from __future__ import annotations

import posixpath
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.storage import StorageError
from mats_core.storage.uris import Uri, uri_text
from pipelines.published.definition import PublishedSet
from pipelines.settings.base import build

Options = TypeVar("Options", bound=BaseModel)
AS_PUBLISHED = "put the file there as its publisher ships it"
_LOOKED_AT = 1000
YOUTUBE_ID = 11
"""Characters of a video's id."""


class Fields(string.Formatter):
    """`{column}` of a row; `{column:06d}` as a whole number; of a path `{column:name}`, `{column:stem}` and
    `{column:youtube}`, the video that a clip's name begins with (Y before it or not)."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = str(value)
        if format_spec.endswith("d"):
            return format(int(float(text)), format_spec)
        name = posixpath.basename(text)
        if format_spec == "name":
            return name
        if format_spec in ("stem", "youtube"):
            stem = posixpath.splitext(name)[0]
            if format_spec == "youtube":
                stem = stem[1:] if len(stem) == YOUTUBE_ID + 1 and stem[0] == "Y" else stem[:YOUTUBE_ID]
            return stem
        return super().format_field(text, format_spec)


_FIELDS = Fields()


def columns_of(template: str) -> list[str]:
    """The columns that a template takes."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


@dataclass
class Folder:
    """The folder of one set, listed once. found: path in it → URI, of every file; versions: URI → version."""

    definition: PublishedSet
    uri: str
    found: dict[str, str]
    versions: dict[str, str]

    def path(self, role: str) -> str | None:
        """The path of a file the definition names, the first of its alternatives that is there; else None. A role that
        the definition does not have is a path."""
        return next((path for path in self.definition.paths(role) or [role] if path in self.found), None)

    def needed(self, role: str) -> str:
        """As `path`; raises SettingsError where none is there."""
        path = self.path(role)
        if path is None:
            problem = f"{' or '.join(self.definition.paths(role) or [role])} is not in {storage.public_uri(self.uri)}"
            raise self.wrong(role, problem, f"get it: {self.definition.source}")
        return path

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """What cannot be read of a file, or is no text in the encoding it should have, as SettingsError."""
        try:
            yield
        except (OSError, StorageError, UnicodeDecodeError) as error:
            encoding = "UTF-8" if not isinstance(error, UnicodeDecodeError) else error.encoding.upper()
            problem = f"not a readable text file in {encoding} ({first_line(error)})"
            raise self.wrong(path, problem, AS_PUBLISHED) from None

    def filled(self, where: str, template: str, fields: Mapping[str, Any]) -> str:
        """A template with a row's fields put in; raises SettingsError for fields that do not fit it."""
        try:
            return _FIELDS.vformat(template, (), fields)
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

    def wrong(self, where: str, problem: str, remedy: str = AS_PUBLISHED) -> SettingsError:
        """An error about a file of this set, or a field of its definition."""
        return SettingsError(f"{self.definition.SETTING}: {self.definition.name}: {where}", problem, remedy)


def list_folder(definition: PublishedSet, root: Uri) -> tuple[str, dict[str, str], dict[str, str]]:
    """(URI, path in it → URI, URI → version) of a set's folder under ``root``, or of ``root`` where that is the folder
    as it was published; raises SettingsError where there is none."""
    uri = storage.join(root, definition.folder or definition.name)
    try:
        if not storage.is_dir(uri) and storage.is_dir(root) and _is_published(definition, root):
            uri = uri_text(root).rstrip("/")
        listed = list(storage.list_files(uri))
    except StorageError as error:
        remedy = f"get its files ({definition.source}), and name the folder that its folder is in with --data"
        remedy += f", or its own with --data {definition.name}=FOLDER"
        shown = storage.public_uri(uri)
        problem = f"its folder {shown} cannot be listed ({error.code})"
        if error.code == "not_found":
            problem = f"there is no folder {shown}"
        raise SettingsError(f"{definition.SETTING}: {definition.name}", problem, remedy) from None
    return uri, {info.path: info.uri for info in listed}, {info.uri: info.version for info in listed}


def _is_published(definition: PublishedSet, root: Uri) -> bool:
    """Whether a folder has each file that a definition names, under one of its names; of a set without such files,
    whether one of the first in it is called as its options say."""
    if definition.files:
        roles = (definition.paths(role) for role in definition.files)
        return all(any(storage.exists(storage.join(root, path)) for path in paths) for paths in roles)
    pattern = definition.options.get("pattern")
    first = islice(storage.list_files(root), _LOOKED_AT)
    return pattern is not None and any(re.search(str(pattern), info.path) for info in first)


def open_folder(definition: PublishedSet, root: Uri) -> Folder:
    """A set's folder under ``root``, listed; raises SettingsError where there is none."""
    return Folder(definition, *list_folder(definition, root))
