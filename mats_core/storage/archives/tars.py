"""Members of a tar archive, each a range of its bytes. Use it through `storage.list_members`.

What is in the archive and may be a sound is listed: a link at the place of the file that it names, and what cannot be
read in place with the error that says why. Archives that were joined (`cat a.tar b.tar`) are read one after the other.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from mats_core.errors import StorageError
from mats_core.storage.listing import FileInfo, has_extension
from mats_core.storage.uris import member_uri, printable

TAR_ENDINGS = frozenset({".tar"})
OTHER_ARCHIVES = frozenset(
    [f".tar.{kind}" for kind in ("gz", "bz2", "xz", "zst", "lz", "lz4", "lzma", "z", "br")]
    + [".tgz", ".taz", ".tbz", ".tbz2", ".txz", ".tzst", ".tlz", ".zip", ".7z", ".rar"]
)
"""Endings of archives that may hold sounds and are not read: their members cannot be reached without unpacking all."""
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z\xbc\xaf", b"Rar!")
MOST_BESIDE = 1 << 20
"""Bytes of what tells of a sound, beside it."""
_MOST_HEADER = 1 << 20  # bytes; a real header has 512, and some more for a long name
_MOST_LINKS = 8  # that lead to one another
_ZEROS = 1 << 20  # bytes; looked through at once for what comes behind an archive's end
_BLOCK = 512


def is_tar(name: str) -> bool:
    """Whether a file is an archive (a WebDataset shard), by its name."""
    return name.lower().endswith(tuple(TAR_ENDINGS))


def is_other_archive(name: str) -> bool:
    """Whether a file is an archive that is not read, by its name."""
    return has_extension(name.encode("utf-8", "replace"), OTHER_ARCHIVES)


def not_read() -> StorageError:
    """The error of an archive that cannot be read in place."""
    return StorageError("refused", "is a packed archive, which is not read in place; unpack it, or store it as .tar")


class _Headers:
    """The file as tarfile may see it: no read of more than a header's worth, which a header may claim in gigabytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MOST_HEADER:
            raise StorageError("too_large", f"is an archive with a header of more than {_MOST_HEADER >> 20} MiB")
        return self._file.read(count)


class _Link(NamedTuple):
    """A member that names another one: `target` as a path in the archive, `at` the byte that its header ends with."""

    name: str
    target: str
    at: int


def members(
    file: BinaryIO,
    archive: FileInfo,
    extensions: AbstractSet[str] | None,
    skipped: Counter[str] | None = None,
    beside: AbstractSet[str] | None = None,
) -> Iterator[FileInfo]:
    """What an open archive holds with one of the extensions (None: any), in order, links last; no folders.

    `path` is the archive's path and the member's name, `uri` tells its place, so that opening it needs no look at the
    archive's other headers; `error` says why a member cannot be read (sparse, a device, a link to nothing, an archive
    itself). skipped: counts the others by ending. beside: endings of members that come with their `content`; larger
    than MOST_BESIDE they count as left out. Raises StorageError after the last good member of an archive that
    is damaged or cut: decode_failed, not_audio (no tar at all), refused (packed), too_large (a header beyond reason).
    """

    def info(name: str, at: int, size: int, error: StorageError | None = None) -> FileInfo:
        uri = member_uri(archive.uri, at, size, name)
        return FileInfo(uri, f"{archive.path}/{name}", size, f"{archive.version}-{at:x}", error)

    wanted = None if extensions is None else extensions | TAR_ENDINGS | OTHER_ARCHIVES
    end = file.seek(0, io.SEEK_END)
    links: list[_Link] = []
    damage: StorageError | None = None
    try:
        for member in _all_headers(file, end):
            name, at = _name(member), member.offset_data
            if member.isdir() or not has_extension(name.encode(), wanted, skipped):
                continue
            if member.islnk() or member.issym():
                links.append(_Link(name, _target(member), at))
                continue
            size = max(0, min(member.size, end - at)) if member.isreg() else 0
            found = info(name, at, size, _refusal(member, name))
            if beside is None or not has_extension(name.encode(), beside):
                yield found
            elif found.error is None and size <= MOST_BESIDE:
                file.seek(at)
                yield replace(found, content=file.read(size))
            else:
                has_extension(name.encode(), frozenset(), skipped)
    except StorageError as error:
        damage = error
    places = _places(file, end, links)
    targets = {posixpath.normpath(link.name): link.target for link in links}
    for link in links:
        target = link.target
        for _ in range(_MOST_LINKS):
            target = target if target in places else targets.get(target, target)
        if target.startswith(("/", "../")):
            yield info(link.name, link.at, 0, StorageError("refused", "is a link that leads out of its archive"))
        elif target not in places:
            lost = StorageError("not_found", f"is a link to {link.target}, which is no file of its archive")
            yield info(link.name, link.at, 0, lost)
        else:
            yield info(link.name, *places[target])
    if damage is not None:
        raise damage


def _all_headers(file: BinaryIO, end: int) -> Iterator[tarfile.TarInfo]:
    """The members of all archives in a file of `end` bytes; raises StorageError as `members`."""
    at = found = 0
    file.seek(0)
    if file.read(6).startswith(_PACKED):
        raise not_read()
    while at < end:
        file.seek(at)
        before = found
        try:
            with tarfile.open(fileobj=_Headers(file), mode="r:", errorlevel=1) as tar:  # type: ignore[call-overload]
                empty = tar.firstmember is None  # type: ignore[attr-defined]  # note: asked again, Python 3.10 seeks to -1
                last = -1
                while not empty and (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # note: it would keep every member it has seen
                    if member.offset <= last:  # a size below zero leads back, and round and round
                        raise tarfile.ReadError("a header that leads back")
                    last, found = member.offset, found + 1
                    yield member
                stopped = tar.offset
        except (tarfile.TarError, RecursionError, ValueError, OverflowError, EOFError, IndexError):
            if not found:
                raise StorageError("not_audio", "is no tar archive, or its first header is damaged") from None
            raise StorageError("decode_failed", f"is an archive that breaks off after {found} members") from None
        if at and found == before:
            raise StorageError("decode_failed", f"has bytes behind its {found} members that are no archive")
        file.seek(stopped)
        if stopped < end and any(file.read(_BLOCK)):  # note: tarfile takes a damaged header for the end
            raise StorageError("decode_failed", f"is an archive with a damaged header after {found} members")
        at = _after_zeros(file, stopped, end)


def _after_zeros(file: BinaryIO, at: int, end: int) -> int:
    """Where the next block that is not all zeros begins, from `at` on; `end` where there is none."""
    file.seek(at)
    while data := file.read(_ZEROS):
        left = len(data.lstrip(b"\0"))
        if left:
            return at + (len(data) - left) // _BLOCK * _BLOCK
        at += len(data)
    return end


def _name(member: tarfile.TarInfo) -> str:
    return printable(member.name.encode("utf-8", "surrogateescape"))


def _target(member: tarfile.TarInfo) -> str:
    """The path in the archive that a link names: a hard link from the archive's root, a symbolic one from itself."""
    target = printable(member.linkname.encode("utf-8", "surrogateescape"))
    return posixpath.normpath(target if member.islnk() else posixpath.join(posixpath.dirname(_name(member)), target))


def _places(file: BinaryIO, end: int, links: list[_Link]) -> dict[str, tuple[int, int]]:
    """(first byte, size) of the files that links name, by path: a second look at the headers, for archives with links
    alone, since all paths of a large archive would not fit into memory."""
    wanted = {link.target for link in links}
    places: dict[str, tuple[int, int]] = {}
    try:
        for member in _all_headers(file, end) if links else ():
            path = posixpath.normpath(_name(member))
            if path in wanted and member.isreg() and not member.issparse():
                places[path] = (member.offset_data, max(0, min(member.size, end - member.offset_data)))
    except StorageError:  # told after the links
        pass
    return places


def _refusal(member: tarfile.TarInfo, name: str) -> StorageError | None:
    """Why a member cannot be read in place; None where it can."""
    if is_tar(name) or is_other_archive(name):
        return StorageError("refused", "is an archive inside an archive, which is not read; unpack the outer one")
    if member.issparse():
        return StorageError("refused", "is a sparse member, which is not read in place; pack it without --sparse")
    if not member.isreg():
        return StorageError("refused", "is a device, a pipe or of an unknown kind, and no file")
    return None
