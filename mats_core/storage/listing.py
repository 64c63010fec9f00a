"""Listing of files below an input: local folders, globs and fsspec file systems. Use it through
`storage.list_files`."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from fsspec.utils import glob_translate

from mats_core.errors import StorageError
from mats_core.storage.clients import remote_info, s3_pages
from mats_core.storage.errors import with_retries
from mats_core.storage.uris import member_range, printable, scheme, uri_from_path, web_parts

PAGE = 1000
"""Objects listed by one request; the most that S3 allows."""
OTHER_ENDINGS = "other"
"""What files are counted under whose ending came after `_MOST_ENDINGS` others."""
_MOST_ENDINGS = 1000


@dataclass(frozen=True)
class FileInfo:
    """One file: `uri` opens it; `path` is relative to the input root (percent-encoded where it is not
    UTF-8); `size` in bytes, 0 where unknown; `version` is an etag, or size and modification time, and empty
    for a link that points to nothing; `error` is why it cannot be read, where the listing knows; `content` its bytes,
    where the listing was to bring them."""

    uri: str
    path: str
    size: int
    version: str
    error: StorageError | None = None
    content: bytes | None = None


class Listed(NamedTuple):
    """What a listing said of a file: bytes (0 where unknown) and version ("" where unknown)."""

    size: int
    version: str


def local_version(status: os.stat_result) -> str:
    """Size and modification time: changes when the file does."""
    return f"{status.st_size}-{status.st_mtime_ns:x}"


def remote_version(info: dict[str, Any]) -> str:
    """The etag of an object, or its size and time where the store has none."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "generation", "blob_id"):
        if info.get(key):
            return str(info[key]).strip('"')
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        if moment := info.get(key):  # note: listing and info may give the same moment in different types
            text = f"{getattr(moment, 'timestamp', lambda: moment)():.6f}" if not isinstance(moment, str) else moment
            return f"{info.get('size') or 0}-{text}"
    return str(info.get("size") or "")


def archive_version(version: str, place: str) -> str:
    """The version of the archive that a member's version was made from; `place` as `uris.split_member` gives it."""
    for end in (f"-{place[1:]}", f"-{member_range(place)[0]:x}"):
        if version.endswith(end):
            return version.removesuffix(end)
    return ""


def remote_name(uri: str) -> str:
    """The last part of a remote URI, without its query string."""
    path = web_parts(uri)[1] if scheme(uri) in ("http", "https") else uri
    return path.rstrip("/").rpartition("/")[2]


def list_local(
    path: bytes, extensions: AbstractSet[str] | None, skipped: Counter[str] | None = None
) -> Iterator[FileInfo]:
    """Files that a local path means: itself, a folder's, or a glob's."""
    if os.path.lexists(path):
        if os.path.isdir(path):
            yield from _walk(path, path, extensions, skipped)
        else:
            yield _file(path, os.path.dirname(path))
        return
    if not glob.has_magic(path):
        raise FileNotFoundError(errno.ENOENT, "no such file or folder")
    root = _fixed_part(path)
    matches = sorted(glob.glob(path, recursive=True))
    wanted = None if _names_extension(path) else extensions
    found = False
    for match in matches:
        if not os.path.isdir(match):
            if has_extension(match, wanted, skipped):
                found = True
                yield _file(match, root)
        elif b"**" not in path:  # "2024-*" means these folders; "**" already lists what is below
            for each in _walk(match, root, extensions, skipped):
                found = True
                yield each
    if not found:
        raise FileNotFoundError(errno.ENOENT, "the pattern matches no file")


def _walk(
    folder: bytes, root: bytes, extensions: AbstractSet[str] | None, skipped: Counter[str] | None
) -> Iterator[FileInfo]:
    """All files below, in the order of their names' bytes. A linked folder inside the root is listed at its real place
    only, one outside once: loops end and nothing comes twice."""
    real_root = os.path.realpath(folder)
    linked: set[bytes] = set()

    def new_folder(path: bytes) -> bool:
        if not os.path.islink(path):
            return True
        real = os.path.realpath(path)
        if real in linked or (real + b"/").startswith(real_root.rstrip(b"/") + b"/"):
            return False
        linked.add(real)
        return True

    def below(path: bytes) -> Iterator[tuple[bytes, bool]]:
        """(path, whether it is a folder) of what is listed in a folder; a name takes little, there may be millions."""
        names: list[bytes] = []
        folders: set[bytes] = set()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    # note: is_dir alone raises for a link to itself
                    if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                        folders.add(entry.name)
                    elif has_extension(entry.name, extensions, skipped):
                        names.append(entry.name)
        except OSError:
            if path == folder:
                raise
            yield path, False  # a folder that may not be read, or is gone: a row with its error, later
            return
        names += [name for name in sorted(folders) if new_folder(os.path.join(path, name))]
        names.sort()
        for name in names:
            yield os.path.join(path, name), name in folders

    stack = [below(folder)]
    while stack:
        path, is_folder = next(stack[-1], (None, False))
        if path is None:
            stack.pop()
        elif is_folder:
            stack.append(below(path))
        else:
            yield _file(path, root)


def _file(path: bytes, root: bytes) -> FileInfo:
    size, version = 0, ""
    with suppress(OSError):  # a link to nothing, or no access: a row with its error, later
        status = os.stat(path)
        size, version = status.st_size, local_version(status)
    return FileInfo(uri_from_path(path), printable(os.path.relpath(path, root or b".")), size, version)


def list_remote(
    fs: Any, name: str, uri: str, extensions: AbstractSet[str] | None, skipped: Counter[str] | None = None
) -> Iterator[FileInfo]:
    """Files that a remote URL means, as `list_local` does it; folder by folder, sorted within each."""
    kind = scheme(uri)
    try:
        info: dict[str, Any] | None = with_retries(lambda: remote_info(fs, name, kind))
    except FileNotFoundError:
        if not glob.has_magic(name):
            raise
        info = None
    if info is not None and info.get("type") != "directory":
        yield FileInfo(uri, remote_name(uri), int(info.get("size") or 0), remote_version(info))
        return
    uri_of, root, meant = uris_like(uri, name), name, None
    if info is None:
        root, meant = _fixed_part(name.encode()).decode(), re.compile(glob_translate(name))
        extensions = None if _names_extension(name.encode()) else extensions
    found = False
    for each in _s3_objects(fs, root) if kind in ("s3", "s3a") else _walk_remote(fs, root):
        if (meant is None or meant.match(each["name"])) and has_extension(each["name"].encode(), extensions, skipped):
            found = True
            yield _object(each, root, kind, uri_of)
    if meant is not None and not found:
        raise FileNotFoundError(errno.ENOENT, "the pattern matches no object")


def _s3_objects(fs: Any, root: str) -> Iterator[dict[str, Any]]:
    """All objects below a prefix, in the order of their keys, a page at a time: a folder of millions is never held
    as a whole."""
    bucket, prefix, _ = fs.split_path(root)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    for page in s3_pages(fs, "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE):
        for each in page.get("Contents", ()):
            if not each["Key"].endswith("/"):  # an object that stands for a folder
                yield {**each, "name": f"{bucket}/{each['Key']}", "size": each["Size"]}


def _walk_remote(fs: Any, root: str) -> Iterator[dict[str, Any]]:
    """All files below a folder, folder by folder, sorted within each; nothing that a listing (a web page, say)
    places elsewhere."""
    stack: list[dict[str, Any]] = [{"name": root, "type": "directory"}]
    seen: set[str] = set()
    inside = root.rstrip("/") + "/"
    while stack:
        entry = stack.pop()
        if entry.get("type") != "directory":
            yield entry
            continue
        place = entry["name"]
        if place in seen:
            continue
        seen.add(place)
        below = sorted(with_retries(partial(fs.ls, place, detail=True)), key=itemgetter("name"), reverse=True)
        # note: an object store shows a prefix as an object of its own name; it is no file
        others = (each for each in below if each["name"].rstrip("/") != place.rstrip("/"))
        stack.extend(each for each in others if each["name"].startswith(inside))


def _object(info: dict[str, Any], root: str, kind: str, uri_of: Callable[[str], str]) -> FileInfo:
    name = info["name"]
    relative = name[len(root.rstrip("/")) :].lstrip("/") if name.startswith(root.rstrip("/")) else name
    if kind in ("http", "https"):
        relative = re.split(r"[?#]", relative, maxsplit=1)[0]
    return FileInfo(uri_of(name), relative, int(info.get("size") or 0), remote_version(info))


def uris_like(uri: str, name: str) -> Callable[[str], str]:
    """From a client's names to URIs like the one listed, which it calls `name`: a client leaves out the account of
    abfss://container@account/… and the host of sftp://host/…."""
    kind, _, place = uri.partition("://")
    if not place.strip("/"):
        return lambda name: name if "://" in name else f"{kind}://{name.lstrip('/')}"
    ours, theirs = uri.rstrip("/").split("/"), name.rstrip("/").split("/")
    same = 0
    while same < len(theirs) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    before, left_out = ours[: len(ours) - same], len(theirs) - same
    return lambda name: name if "://" in name else "/".join([*before, *name.split("/")[left_out:]])


def has_extension(name: bytes, extensions: AbstractSet[str] | None, skipped: Counter[str] | None = None) -> bool:
    """Whether a name ends with one of the extensions (".wav", ".tar.gz"); None allows all. `skipped` counts the endings
    of those that do not."""
    if extensions is None:
        return True
    stem, last = os.path.splitext(name)
    ending = last.decode("utf-8", "replace").lower()
    if ending in extensions or (stem.lower().endswith(b".tar") and f".tar{ending}" in extensions):
        return True
    if skipped is not None:
        skipped[ending if ending in skipped or len(skipped) < _MOST_ENDINGS else OTHER_ENDINGS] += 1
    return False


def _names_extension(pattern: bytes) -> bool:
    """Whether a glob says itself which files it means ("*.wav", "a/clip?.dat"), so that no filter is due."""
    extension = os.path.splitext(pattern)[1]
    return bool(extension) and not glob.has_magic(extension)


def _fixed_part(pattern: bytes) -> bytes:
    """The folder of a glob before its first magic character: the root that paths are relative to."""
    parts = pattern.split(b"/")
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return b"/".join(parts[:first]) or b"/"
