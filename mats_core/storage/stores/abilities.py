"""What a store can of what runs ask of it, found out by doing it: `mats doctor --store`."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator

from mats_core.errors import StorageError
from mats_core.storage.reading import exists, list_files, open_binary, read_bytes
from mats_core.storage.uris import OBJECT_STORES, Uri, join, scheme, uri_text
from mats_core.storage.writing import refused_condition, remove_tree, write_bytes, write_from

CREATE = "create-if-absent"
"""The one that a run can do without: `writing.create_bytes`."""
_NAMES = ("a b+c.txt", "100%25 ü.txt", 'it\'s "q"&?#.txt')
_PART = 5 << 20  # bytes; the least that S3 takes


def examine_store(uri: Uri) -> Iterator[tuple[str, str]]:
    """(what is tried, what the store says where it fails, else "") for write, list, read a range, create-if-absent,
    multipart and delete, in a folder of its own below `uri`, which it removes. Where nothing can be written: for list
    and read a range, of what lies there."""
    uri = uri_text(uri)
    folder = join(uri, f"mats-doctor-{uuid.uuid4().hex[:8]}")
    places = [join(folder, name) for name in _NAMES]
    problem = _problem(lambda: _write_all(places))
    yield "write", problem
    if problem:
        yield "list", _problem(lambda: "" if exists(uri) else "nothing is there")
        yield "read a range", _problem(lambda: _read_first(uri))
        return
    try:
        yield "list", _problem(lambda: _unlike([each.path for each in list_files(folder)], sorted(_NAMES)))
        yield "read a range", _problem(lambda: _unlike(_read_range(places[0], 3), places[0].encode()[3:]))
        yield CREATE, _problem(lambda: refused_condition(join(folder, "file")))
        if scheme(uri) in OBJECT_STORES:
            yield "multipart", _problem(lambda: _upload(join(folder, "large")))
    finally:
        problem = _problem(lambda: _remove(folder))
    yield "delete", problem


def _problem(action: Callable[[], str]) -> str:
    try:
        return action()
    except StorageError as error:
        return error.message


def _write_all(uris: list[str]) -> str:
    for uri in uris:
        write_bytes(uri, uri.encode())
    return ""


def _remove(folder: str) -> str:
    remove_tree(folder)
    return "files are there still" if exists(folder) else ""


def _unlike(found: object, expected: object) -> str:
    return "" if found == expected else f"it gives {found!r} instead of {expected!r}"


def _read_range(uri: str, first: int) -> bytes:
    with open_binary(uri) as file:
        file.seek(first)
        return file.read()


def _read_first(uri: str) -> str:
    info = next(iter(list_files(uri)), None)
    if info is None:
        return "no file is there to read"
    with open_binary(info.uri) as file:
        file.read(1)
    return ""


def _upload(uri: str) -> str:
    data = bytes(_PART) + b"end"
    write_from(uri, io.BytesIO(data), part_bytes=_PART)
    return "" if read_bytes(uri) == data else "it gives other bytes than were sent in two parts"
