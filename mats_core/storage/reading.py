"""Reading: files, listings and what is known of a file, whatever the store.

Names are taken literally: only the INPUT of `list_files` may be a glob, and only where nothing has exactly that name.

Bytes that were changed on their way, though all came, are noticed where S3 tells a checksum of the object and all of
it is read in order: by `read_bytes` and `copy_into`, and of a file from `open_binary` that is read from start to end.
A range of an object has no checksum in S3, nor has a file on a web server or on a disk.
"""

from __future__ import annotations

import io
import os
import shutil
import stat as stat_module
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from mats_core.errors import StorageError
from mats_core.storage import listing
from mats_core.storage.archives import rows, tars
from mats_core.storage.clients import call_store, checks_content, coded, open_client, remote_info, remote_type
from mats_core.storage.errors import DAMAGED_TRIES, DamagedAnswer, with_retries
from mats_core.storage.listing import FileInfo, Listed
from mats_core.storage.stores.ranged import CHANGED, ReopenedFile, S3File, Slice
from mats_core.storage.uris import (
    Uri,
    archive_of,
    lies_inside,
    local_path,
    member_range,
    printable,
    public_uri,
    scheme,
    split_member,
    split_row,
    uri_from_path,
    uri_text,
)

_MEMBERS_AHEAD = 1 << 18  # of an archive whose headers are read: one request a member, or less for small ones
_WHOLE = 8 << 20  # of a file that is read whole: one request for most
_HEADER_BLOCK = 65536  # note: fsspec's default block of up to 52 MB would read that much for every header


def open_binary(
    uri: Uri, max_bytes: int | None = None, read_ahead: int = _HEADER_BLOCK, listed: Listed | None = None
) -> BinaryIO:
    """A seekable binary file to read. Remote files are read in ranges of `read_ahead` bytes as they are needed
    (small for a header, larger for decoding: each is a request); a server that cannot seek is read once into
    a temporary file of at most `max_bytes`.

    `listed`: what a listing said of the file. Another one there now is an error, as far as opening it tells: by version
    on disk and in S3, elsewhere by size.

    Raises StorageError: not_found, access_denied, io_error (a folder, a pipe, a device; not the file listed), refused.
    """
    uri = uri_text(uri)
    path = local_path(uri)
    if path is not None:
        return _open_local(path, uri, listed)
    if scheme(uri).startswith("tar+"):
        return _open_member(uri, max_bytes, read_ahead, listed)
    if scheme(uri).startswith("parquet+"):
        with coded(uri):
            return rows.open_row(uri, open_binary, max_bytes, listed)
    with coded(uri):
        fs, name = open_client(uri)
        if scheme(uri) in ("s3", "s3a"):
            version = listed.version if listed else ""
            return S3File(fs, name, read_ahead, version, checks_content(uri))  # type: ignore[return-value]

        def open_file() -> Any:
            return fs.open(name, "rb", block_size=read_ahead, cache_type="readahead")

        file = with_retries(open_file)
        if not file.seekable():
            return with_retries(lambda: _spooled(open_file(), max_bytes))
        found = ReopenedFile(file, open_file)
        if listed is not None and listed.size and listed.size != found.size:
            raise StorageError("io_error", CHANGED)
        return found  # type: ignore[return-value]


def _open_member(uri: str, max_bytes: int | None, read_ahead: int, listed: Listed | None) -> BinaryIO:
    archive, place = split_member(uri)
    if listed is not None:
        listed = Listed(0, listing.archive_version(listed.version, place))
    file = open_binary(archive, max_bytes, read_ahead, listed)
    return Slice(file, *member_range(place))  # type: ignore[return-value]


def _open_local(path: bytes, uri: str, listed: Listed | None) -> BinaryIO:
    with coded(uri):
        # note: O_NONBLOCK, because opening a named pipe would otherwise wait for a writer for ever
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        mode = os.fstat(descriptor).st_mode
        if not stat_module.S_ISREG(mode):
            os.close(descriptor)
            what = "a folder" if stat_module.S_ISDIR(mode) else "a pipe, socket or device"
            raise StorageError("io_error", f"is {what}, not a file")
        if listed is not None and listed.version not in ("", listing.local_version(os.fstat(descriptor))):
            os.close(descriptor)
            raise StorageError("io_error", CHANGED)
        return os.fdopen(descriptor, "rb")


def _spooled(file: BinaryIO, max_bytes: int | None) -> BinaryIO:
    spool = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115 (the caller closes it)
    with file:  # where it is over the limit, the reader finds that by its size
        while (max_bytes is None or spool.tell() <= max_bytes) and (block := file.read(1 << 20)):
            spool.write(block)
    spool.seek(0)
    return spool  # type: ignore[return-value]


def list_files(
    uri: Uri, extensions: frozenset[str] | set[str] | None = None, skipped: Counter[str] | None = None
) -> Iterator[FileInfo]:
    """Every file that INPUT means, in a stable order: a file, a folder with all below it, a glob, or a URL
    of these.

    `extensions` (".wav", …, lower case) filters folders and open-ended globs, never a file that was named; `skipped`
    counts what it leaves out by ending.
    Linked folders outside the root are followed once, so loops end; a link to nothing is still yielded, to
    become a row with its error. Raises StorageError when the input itself does not exist or cannot be
    listed.
    """
    uri = uri_text(uri)
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            yield from listing.list_local(path, extensions, skipped)
        else:
            fs, name = open_client(uri)
            yield from listing.list_remote(fs, name, uri, extensions, skipped)


def list_members(
    archive: FileInfo,
    extensions: frozenset[str] | None,
    skipped: Counter[str] | None = None,
    beside: frozenset[str] | None = None,
) -> Iterator[FileInfo]:
    """Files with one of the extensions (None: all) inside a tar archive, those with one of `beside` with their content.
    Raises StorageError; see `tars.members`."""
    with open_binary(archive.uri, read_ahead=_MEMBERS_AHEAD) as file, coded(archive.uri):
        yield from tars.members(file, archive, extensions, skipped, beside)


def stat(uri: Uri) -> FileInfo:
    """Size and version of one file, with its name as path. Raises StorageError."""
    uri = uri_text(uri)
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            status = os.stat(path)
            if stat_module.S_ISDIR(status.st_mode):
                raise StorageError("io_error", "is a folder, not a file")
            name = os.path.basename(path)
            return FileInfo(uri_from_path(path), printable(name), status.st_size, listing.local_version(status))
        if scheme(uri).startswith("tar+"):
            archive, place = split_member(uri)
            return FileInfo(
                uri, listing.remote_name(uri), member_range(place)[1], f"{stat(archive).version}-{place[1:]}"
            )
        if scheme(uri).startswith("parquet+"):
            file, row, _ = split_row(uri)
            return FileInfo(uri, listing.remote_name(uri), 0, rows.version_of(stat(file).version, row))
        info = call_store(uri, lambda fs, name: remote_info(fs, name, scheme(uri)))
        if info.get("type") == "directory":
            raise StorageError("io_error", f"{public_uri(uri)} is a folder, not a file")
        return FileInfo(uri, listing.remote_name(uri), int(info.get("size") or 0), listing.remote_version(info))


def exists(uri: Uri) -> bool:
    """Whether a file or folder is there. Raises StorageError where access is denied."""
    return _type(uri) is not None


def is_dir(uri: Uri) -> bool:
    """Whether the URI names a folder (for object stores: a prefix with objects below it)."""
    return _type(uri) == "directory"


def _type(uri: Uri) -> str | None:
    uri = uri_text(uri)
    path = local_path(uri)
    with coded(uri):
        if lies_inside(uri):
            return None if _type(archive_of(uri)) != "file" else "file"
        if path is None:
            return remote_type(uri)
        return "directory" if os.path.isdir(path) else "file" if os.path.exists(path) else None


def read_bytes(uri: Uri) -> bytes:
    """The whole file, checked as `copy_into` does. Raises StorageError."""
    if local_path(uri) is None and scheme(uri) not in ("s3", "s3a") and not lies_inside(uri):
        with coded(uri):
            # note: one request; between two of them the file may be written anew, as a lease is
            return bytes(call_store(uri, lambda fs, name: fs.cat_file(name)))
    buffer = io.BytesIO()
    copy_into(buffer, uri)
    return buffer.getvalue()


def copy_into(target: BinaryIO, uri: Uri, listed: Listed | None = None) -> int:
    """Write a whole file into an open one, in place of what that holds; returns how many bytes. `listed` as for
    `open_binary`.

    What comes from S3 is held against the object's ETag, where that is an MD5 (not of uploads in parts, nor where a key
    of the user's encrypts), else against the checksum of the whole that was stored with it, if there is one. Other
    bytes are fetched anew. Raises StorageError; io_error where they are damaged again.
    """
    with coded(uri):
        for attempt in range(1, DAMAGED_TRIES + 1):
            target.seek(0)
            target.truncate()
            try:
                with open_binary(uri, read_ahead=_WHOLE, listed=listed) as file:
                    if isinstance(file, S3File):
                        file.ask_checksum()
                    shutil.copyfileobj(file, target, _WHOLE)
                return target.tell()
            except DamagedAnswer:
                if attempt == DAMAGED_TRIES:
                    raise
    raise AssertionError
