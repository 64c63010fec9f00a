"""Tar archives (WebDataset shards) as folders of their members, which are read in place by range.

A member's URI is tar+ARCHIVE!OFFSET+SIZE/NAME, so that opening it needs no look at the archive's other headers.
Headers are read by Python's tarfile through a file that hands out little at once: a header may claim gigabytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import BinaryIO

from mats_core.errors import StorageError
from mats_core.storage.files import RangedFile
from mats_core.storage.listing import FileInfo, has_extension
from mats_core.storage.uris import member_range, member_uri, printable

TAR_ENDINGS = frozenset({".tar"})
_MOST_HEADER = 1 << 20  # bytes; a real header has 512, and some more for a long name


def is_tar(name: str) -> bool:
    """Whether a file is an archive, by its name."""
    return name.lower().endswith(tuple(TAR_ENDINGS))


def archive_version(version: str, place: str) -> str:
    """The version of the archive that a member's version was made from; `place` as `uris.split_member` gives it."""
    for end in (f"-{place[1:]}", f"-{member_range(place)[0]:x}"):
        if version.endswith(end):
            return version.removesuffix(end)
    return ""


class Slice(RangedFile):
    """`size` bytes from `first` on of a seekable file, as a file; fewer where that file ends before."""

    def __init__(self, file: BinaryIO, first: int, size: int) -> None:
        self._file, self._first = file, first
        self.size = max(0, min(size, file.seek(0, io.SEEK_END) - first))

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(self._first + at)
        return self._file.read(count)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Headers(io.RawIOBase):
    """The file as tarfile may see it: no read of more than a header's worth."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int | None = -1) -> bytes:
        if count is None or not 0 <= count <= _MOST_HEADER:
            raise StorageError("too_large", f"is an archive with a header of more than {_MOST_HEADER >> 20} MiB")
        return self._file.read(count)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def members(file: BinaryIO, archive: FileInfo, extensions: AbstractSet[str]) -> Iterator[FileInfo]:
    """Regular files with one of the extensions in an open archive, in its order; `path` is the archive's path and
    the member's name.

    Raises StorageError after the last good member of an archive that is damaged or cut: decode_failed, not_audio
    (no tar at all), too_large (a header beyond reason).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    found = 0
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:", errorlevel=1) as tar:
            empty = tar.firstmember is None  # type: ignore[attr-defined]  # note: asked again, Python 3.10 seeks to -1
            while not empty and (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # note: it would keep every member it has seen
                found += 1
                if member.isreg() and not member.issparse():
                    name = printable(member.name.encode("utf-8", "surrogateescape"))
                    if has_extension(name.encode(), extensions):
                        yield FileInfo(
                            member_uri(archive.uri, member.offset_data, member.size, name),
                            f"{archive.path}/{name}",
                            member.size,
                            f"{archive.version}-{member.offset_data:x}",
                        )
            end = tar.offset
    except (tarfile.TarError, RecursionError, ValueError, OverflowError, EOFError):
        if not found:
            raise StorageError("not_audio", "is no tar archive, or its first header is damaged") from None
        raise StorageError("decode_failed", f"is an archive that breaks off after {found} members") from None
    file.seek(end)
    if end < size and any(file.read(512)):  # note: tarfile takes a damaged header for the end
        raise StorageError("decode_failed", f"is an archive with a damaged header after {found} members")
