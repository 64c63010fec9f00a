"""Where the clips of a set come from: ids by which the same clip is found in another set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mats_core import storage
from pipelines.published.folder import Folder, columns_of
from pipelines.published.tables import Row, table

_IDS = {"youtube": re.compile(r"[\w-]{11}"), "freesound": re.compile(r"[1-9]\d*")}


def origin_of(folder: Folder, fields: Mapping[str, Any], where: str = "origin") -> dict[str, str]:
    """Where a clip comes from → its id there, by the definition's templates; what is no id there is left out."""
    found: dict[str, str] = {}
    for place, template in folder.definition.origin.items():
        value = folder.filled(where, template, fields)
        if _IDS[place].fullmatch(value):
            found[place] = value
    return found


def origin_rows(folder: Folder) -> dict[str, Row]:
    """The rows of the definition's `origin_file` by their file_name; none where that is not there."""
    definition = folder.definition
    if not has_origins(folder) or not definition.origin_file:
        return {}
    needed = ["file_name", *(name for template in definition.origin.values() for name in columns_of(template))]
    path = folder.found[definition.origin_file]
    with folder.reading(definition.origin_file):
        data = storage.read_bytes(path)
    try:
        data.decode("utf-8-sig")
        encoding = "utf-8-sig"
    except UnicodeDecodeError:
        encoding = "latin-1"  # note: as Clotho's metadata is published
    rows = table(folder, definition.origin_file, ",", None, needed, encoding=encoding)
    return {row["file_name"]: row for _, row in rows}


def has_origins(folder: Folder) -> bool:
    """Whether the files tell where the clips come from."""
    definition = folder.definition
    return bool(definition.origin) and (not definition.origin_file or definition.origin_file in folder.found)
