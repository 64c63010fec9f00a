"""Names that others gave (keys of a bucket, files of an index), checked before one becomes a path.

A name is relative, with "/" between its parts. What a path here, on Windows or on a disk that does not tell case apart
could take for another place is refused by name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from mats_core.errors import StorageError

MOST_NAME, MOST_PATH = 255, 4095  # bytes, of a part and of the whole path: Linux's
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?")


def name_fault(name: str) -> str | None:
    """What keeps a name from becoming a path below a folder, in words; None where nothing does."""
    parts = name.split("/")
    if not name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute" if name else "is empty"
    if "\\" in name:
        return "holds a backslash, which separates folders on some systems"
    if ".." in parts:
        return 'leaves its folder by ".."'
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return "holds a control character"
    if any(part in ("", ".") for part in parts):
        return 'holds an empty part or "."'
    if any(_DEVICE.fullmatch(part.rstrip(" .")) for part in parts):
        return "is the name of a device on some systems"
    if any(len(part.encode()) > MOST_NAME for part in parts):
        return f"has a part of more than {MOST_NAME} bytes"
    return None


def paths_below(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """name → its path below `folder`, of all names that are to lie there together.

    Raises StorageError refused, which names the first that `name_fault` finds wrong, that makes too long a path, or
    that some file systems do not tell from another (by case or by how an accent is written).
    """
    paths: dict[str, Path] = {}
    seen: dict[str, tuple[str, bool]] = {}  # folded → as it was given, and whether it is a file
    for name in names:
        if (fault := name_fault(name)) is not None:
            raise StorageError("refused", f"the name {_shown(name)} {fault}")
        path = folder / name
        if len(bytes(path)) > MOST_PATH:
            raise StorageError("refused", f"the name {_shown(name)} makes a path of more than {MOST_PATH} bytes")
        steps = name.split("/")
        for depth in range(1, len(steps) + 1):
            place = "/".join(steps[:depth]), depth == len(steps)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place[0]).casefold())
            other = seen.setdefault(key, place)
            if other != place or name in paths:
                both = f"the names {_shown(other[0])} and {_shown(name)}"
                raise StorageError("refused", f"{both} are one on some file systems, or a file and a folder at once")
        paths[name] = path
    return paths


def _shown(name: str) -> str:
    """A name in a message: escaped, and cut."""
    text = ascii(name) if not name.isprintable() else f'"{name}"'
    return text if len(text) <= 120 else f"{text[:100]}…{text[-10:]}"
