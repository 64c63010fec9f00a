"""Names in the output, and files that are put in place whole.

An archive's names are anything. Whatever they are, what is written for them lies below the output, under a name that
every file system takes, and no two sounds share one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from mats_core.storage.uris import local_path, printable, public_uri

MOST_NAME, MOST_DEPTH = 120, 16
"""Bytes of one name (some endings are added to it) and folders above it."""
_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


class Names:
    """Gives each sound a path below the output; the same sound gets the same one when asked again in the same order.

    root: what all paths begin with and is left away, as `common_root` finds it.
    """

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._taken: dict[bytes, bytes] = {}  # digests of paths → of the sounds that have them

    def path(self, uri: str, ending: str) -> str:
        """The path for a sound, with `ending` in place of its own; with its own before, where that is taken."""
        steps = safe_steps(shown(uri).removeprefix(self._root))
        stem = steps[-1].rpartition(".")[0] or steps[-1]
        mark = hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8)
        for name in (stem, steps[-1], f"{stem}-{mark.hexdigest()}"):
            path = "/".join([*steps[:-1], f"{name}{ending}"])
            key = hashlib.blake2b(path.lower().encode(), digest_size=8).digest()  # some file systems know no case
            if self._taken.setdefault(key, mark.digest()) == mark.digest():
                return path
        raise AssertionError(f"two sounds have the name {path}")


def shown(uri: str) -> str:
    """The path or URL of a sound as text that any file can hold, without secrets."""
    path = local_path(uri)
    return public_uri(uri) if path is None else printable(path)


def safe_steps(path: str) -> list[str]:
    """The names of a path, at least one, none of which leads anywhere or is unfit for a file system."""
    found = []
    for step in re.split(r"[/\\]+", path):
        name = _UNFIT.sub("_", step).strip(" .")
        if not name:
            continue
        name = f"_{name}" if _RESERVED.fullmatch(name) or name.startswith("-") else name
        data = name.encode()
        if len(data) > MOST_NAME:
            digest = hashlib.blake2b(data, digest_size=4).hexdigest()
            name = f"{data[: MOST_NAME - 9].decode(errors='ignore')}-{digest}"
        found.append(name)
    return found[-MOST_DEPTH:] or ["_"]


def common_root(uris: Iterator[str]) -> str:
    """What the folders of all sounds begin with, up to a slash."""
    root: str | None = None
    for uri in uris:
        folder = shown(uri).rpartition("/")[0] + "/"
        if root is None:
            root = folder
        while not folder.startswith(root):
            root = root.rstrip("/").rpartition("/")[0] + "/" if "/" in root.rstrip("/") else ""
    return root or ""


def as_text(value: Any) -> str:
    """A value as one line of text."""
    return " ".join(str(value).split()) if value is not None else ""
