"""The only module that knows file systems: local paths, and through fsspec s3://, gs://, az://, http(s)://,
memory:// …

A URI is text. A local file is its absolute path as it stands; a local name that is not UTF-8 becomes
``file://`` + percent-encoding, so that every URI can be written to Parquet and JSON. Names are taken
literally: only the INPUT of `list_files` may be a glob, and only where nothing has exactly that name.
"""

from __future__ import annotations

import os
import stat as stat_module
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote_from_bytes

from mats_core.storage.calls import at_store, coded, info_of, remote_type
from mats_core.storage.clients import OBJECT_STORES, open_store
from mats_core.storage.errors import StorageError
from mats_core.storage.listing import (
    FileInfo,
    Listed,
    list_local,
    list_remote,
    local_version,
    remote_name,
    remote_version,
)
from mats_core.storage.retries import SteadyFile, steady
from mats_core.storage.files import CHANGED, S3File
from mats_core.storage.tar import Slice, archive_version, members
from mats_core.storage.uris import (
    is_file_url,
    local_path,
    member_range,
    printable,
    public_uri,
    scheme,
    split_member,
    uri_from_path,
)

_MEMBERS_AHEAD = 1 << 18  # of an archive whose headers are read: one request a member, or less for small ones
_WHOLE = 8 << 20  # of a file that is read whole: one request for most
_HEADER_BLOCK = 65536  # note: fsspec's default block of up to 52 MB would read that much for every header


def join(base: str, *parts: str) -> str:
    """`base` and relative parts, whatever the scheme. A part that climbs out (absolute, "..") is refused."""
    # note: in an object store "a//b" is another name than "a/b"
    empty = () if scheme(base) in OBJECT_STORES else ("", ".")
    steps = [step for part in parts for step in part.split("/") if step not in empty]
    if ".." in steps or any(part.startswith("/") or scheme(part) for part in parts):
        raise StorageError("refused", f"{'/'.join(parts)!r} would leave {public_uri(base)}")
    if is_file_url(base):
        steps = [quote_from_bytes(os.fsencode(step)) for step in steps]
    root, mark, query = base.partition("?") if scheme(base) in ("http", "https") else (base, "", "")
    return "/".join([root.rstrip("/"), *steps]) + mark + query


def filesystem(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI; see stores.py for its settings. Raises StorageError."""
    with coded(uri):
        return open_store(uri)


def open_binary(
    uri: str, max_bytes: int | None = None, read_ahead: int = _HEADER_BLOCK, listed: Listed | None = None
) -> BinaryIO:
    """A seekable binary file to read. Remote files are read in ranges of `read_ahead` bytes as they are needed
    (small for a header, larger for decoding: each is a request); a server that cannot seek is read once into
    a temporary file of at most `max_bytes`.

    `listed`: what a listing said of the file. Another one there now is an error, as far as opening it tells: by version
    on disk and in S3, elsewhere by size.

    Raises StorageError: not_found, access_denied, io_error (a folder, a pipe, a device; not the file listed), refused.
    """
    path = local_path(uri)
    if path is not None:
        return _open_local(path, uri, listed)
    if scheme(uri).startswith("tar+"):
        return _open_member(uri, max_bytes, read_ahead, listed)
    with coded(uri):
        fs, name = open_store(uri)
        if scheme(uri) in ("s3", "s3a"):
            return S3File(fs, name, read_ahead, listed.version if listed else "")  # type: ignore[return-value]

        def open_it() -> Any:
            return fs.open(name, "rb", block_size=read_ahead, cache_type="readahead")

        file = steady(open_it)
        if not file.seekable():
            return steady(lambda: _spooled(open_it(), max_bytes))
        found = SteadyFile(file, open_it)
        if listed is not None and listed.size and listed.size != found.size:
            raise StorageError("io_error", CHANGED)
        return found  # type: ignore[return-value]


def _member(uri: str) -> tuple[str, str]:
    try:
        return split_member(uri)
    except ValueError as error:
        raise StorageError("refused", str(error)) from None


def _open_member(uri: str, max_bytes: int | None, read_ahead: int, listed: Listed | None) -> BinaryIO:
    archive, place = _member(uri)
    if listed is not None:
        listed = Listed(0, archive_version(listed.version, place))
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
        if listed is not None and listed.version not in ("", local_version(os.fstat(descriptor))):
            os.close(descriptor)
            raise StorageError("io_error", CHANGED)
        return os.fdopen(descriptor, "rb")


def _spooled(file: BinaryIO, max_bytes: int | None) -> BinaryIO:
    spool = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115 (the caller closes it)
    with file:
        while block := file.read(1 << 20):
            spool.write(block)
            if max_bytes is not None and spool.tell() > max_bytes:
                break  # the reader finds it over the limit by its size
    spool.seek(0)
    return spool  # type: ignore[return-value]


def list_files(uri: str, extensions: frozenset[str] | set[str] | None = None) -> Iterator[FileInfo]:
    """Every file that INPUT means, in a stable order: a file, a folder with all below it, a glob, or a URL
    of these.

    `extensions` (".wav", …, lower case) filters folders and open-ended globs, never a file that was named.
    Linked folders outside the root are followed once, so loops end; a link to nothing is still yielded, to
    become a row with its error. Raises StorageError when the input itself does not exist or cannot be
    listed.
    """
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            yield from list_local(path, extensions)
        else:
            fs, name = open_store(uri)
            yield from list_remote(fs, name, uri, extensions)


def list_members(archive: FileInfo, extensions: frozenset[str]) -> Iterator[FileInfo]:
    """Files with one of the extensions inside a tar archive. Raises StorageError; see tar.py."""
    with open_binary(archive.uri, read_ahead=_MEMBERS_AHEAD) as file, coded(archive.uri):
        yield from members(file, archive, extensions)


def stat(uri: str) -> FileInfo:
    """Size and version of one file, with its name as path. Raises StorageError."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            status = os.stat(path)
            if stat_module.S_ISDIR(status.st_mode):
                raise StorageError("io_error", "is a folder, not a file")
            name = os.path.basename(path)
            return FileInfo(uri_from_path(path), printable(name), status.st_size, local_version(status))
        if scheme(uri).startswith("tar+"):
            archive, place = _member(uri)
            return FileInfo(uri, remote_name(uri), member_range(place)[1], f"{stat(archive).version}-{place[1:]}")
        info = info_of(uri)
        if info.get("type") == "directory":
            raise StorageError("io_error", f"{public_uri(uri)} is a folder, not a file")
        return FileInfo(uri, remote_name(uri), int(info.get("size") or 0), remote_version(info))


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StorageError where access is denied."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            return os.path.exists(path)
        return remote_type(uri) is not None


def same_place(one: str, other: str) -> bool:
    """Whether two URIs name the same file or folder; of a store by their names alone."""
    paths = local_path(one), local_path(other)
    if paths[0] is not None and paths[1] is not None:
        return os.path.realpath(paths[0]) == os.path.realpath(paths[1])
    return public_uri(one).rstrip("/") == public_uri(other).rstrip("/")


def lies_in(uri: str, folder: str) -> bool:
    """Whether a URI is a folder or something below it; of a store by their names alone."""
    paths = local_path(uri), local_path(folder)
    if paths[0] is not None and paths[1] is not None:
        one, other = os.fsdecode(os.path.realpath(paths[0])), os.fsdecode(os.path.realpath(paths[1]))
    else:
        one, other = public_uri(uri), public_uri(folder)
    return f"{one.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def is_dir(uri: str) -> bool:
    """Whether the URI names a folder (for object stores: a prefix with objects below it)."""
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            return os.path.isdir(path)
        return remote_type(uri) == "directory"


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises StorageError."""
    if local_path(uri) is None and scheme(uri) not in ("s3", "s3a") and not scheme(uri).startswith("tar+"):
        with coded(uri):
            # note: one request; between two of them the file may be written anew, as a lease is
            return bytes(at_store(uri, lambda fs, name: fs.cat_file(name)))
    with open_binary(uri, read_ahead=_WHOLE) as file, coded(uri):
        return file.read()


def arrow(uri: str) -> tuple[Any, str]:
    """(pyarrow file system, path) to read and write Parquet there. Raises StorageError for a name it cannot
    take."""
    from pyarrow import fs as arrow_fs

    path = local_path(uri)
    if path is not None:
        try:
            return arrow_fs.LocalFileSystem(), path.decode("utf-8")
        except UnicodeDecodeError:
            raise StorageError("refused", f"{uri}: Parquet needs a path in UTF-8") from None
    fs, name = filesystem(uri)
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs)), name
