"""The only module that knows file systems: local paths, and through fsspec s3://, gs://, az://, http(s)://,
memory:// …

A URI is text. A local file is its absolute path as it stands; a local name that is not UTF-8 becomes
``file://`` + percent-encoding, so that every URI can be written to Parquet and JSON. Names are taken
literally: only the INPUT of `list_files` may be a glob, and only where nothing has exactly that name.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat as stat_module
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import quote_from_bytes

from mats_core.errors import CodedError
from mats_core.listing import FileInfo, list_local, list_remote, local_version, remote_name, remote_version
from mats_core.uris import local_path, printable, public_uri, scheme, uri_from_path

__all__ = [
    "FileInfo",
    "StorageError",
    "arrow",
    "error_from",
    "exists",
    "filesystem",
    "is_dir",
    "join",
    "list_files",
    "local_path",
    "make_dirs",
    "open_binary",
    "public_uri",
    "read_bytes",
    "remove_tree",
    "scheme",
    "stat",
    "uri_from_path",
    "write_bytes",
]

# Schemes that lead on to other files or URLs; a manifest must not be able to reach through them.
_REDIRECTING = (
    "zip tar simplecache filecache blockcache cached dir reference generic libarchive git github data dask "
    "jupyter jlab asynclocal local"
)
_WRAPPERS = frozenset(_REDIRECTING.split())
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2"})
_HEADER_BLOCK = 65536  # note: fsspec's default block of up to 52 MB would read that much for every header


class StorageError(CodedError):
    """A path or URL that cannot be used; `code` is not_found, access_denied, io_error or refused."""


def join(base: str, *parts: str) -> str:
    """`base` and relative parts, whatever the scheme. A part that climbs out (absolute, "..") is refused."""
    steps = [step for part in parts for step in part.split("/") if step not in ("", ".")]
    if ".." in steps or any(part.startswith("/") or scheme(part) for part in parts):
        raise StorageError("refused", f"{'/'.join(parts)!r} would leave {public_uri(base)}")
    if base.startswith("file://"):
        steps = [quote_from_bytes(os.fsencode(step)) for step in steps]
    root, mark, query = base.partition("?") if scheme(base) in ("http", "https") else (base, "", "")
    return "/".join([root.rstrip("/"), *steps]) + mark + query


def error_from(error: BaseException, uri: str) -> StorageError:
    """The coded form of what a file system raised. Its own text is left out: it may hold signed URLs."""
    if isinstance(error, StorageError):
        return error
    name = public_uri(uri)
    if scheme(uri) in ("http", "https") and isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # note: fsspec says "not found" for a refused or failed connection, too
    kind = type(error).__name__
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or status == 404:
        path = local_path(uri)
        if path is not None and os.path.islink(path):
            return StorageError("not_found", "the link points to a file that is not there")
        return StorageError("not_found", f"{name} does not exist")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in kind:
        return StorageError("access_denied", f"access to {name} is denied ({kind})")
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else kind
    return StorageError("io_error", f"{name} cannot be read or written: {reason}")


@contextmanager
def _coded(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise error_from(error, uri) from None


def filesystem(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI. Credentials, endpoint, region, anonymous and
    requester-pays access come from the usual variables (AWS_…, FSSPEC_S3_…), never from the URI."""
    import fsspec

    kind = scheme(uri)
    if kind in _WRAPPERS:
        raise StorageError("refused", f"{kind}:// reaches through to other files; name the file itself")
    try:
        cls = fsspec.get_filesystem_class(kind)
    except ValueError:
        raise StorageError("refused", f"{kind}:// is not a known kind of storage") from None
    except ImportError as error:
        raise StorageError("refused", f"{kind}:// needs a package that is not installed: {error}") from None
    with _coded(uri):
        # note: not url_to_fs: it would split a literal "::" in an object name into chained file systems
        # note: listings are not kept: a later scan must see new files, and millions of names would stay in memory
        options = {**cls._get_kwargs_from_urls(uri), "use_listings_cache": False}
        return cls(**options), cls._strip_protocol(uri)


def open_binary(uri: str, max_bytes: int | None = None, read_ahead: int = _HEADER_BLOCK) -> BinaryIO:
    """A seekable binary file to read. Remote files are read in ranges of `read_ahead` bytes as they are needed
    (small for a header, larger for decoding: each is a request); a server that cannot seek is read once into
    a temporary file of at most `max_bytes`.

    Raises StorageError: not_found, access_denied, io_error (a folder, a pipe, a device), refused.
    """
    path = local_path(uri)
    if path is not None:
        return _open_local(path, uri)
    fs, name = filesystem(uri)
    with _coded(uri):
        file = fs.open(name, "rb", block_size=read_ahead, cache_type="readahead")
        return file if file.seekable() else _spooled(file, max_bytes)


def _open_local(path: bytes, uri: str) -> BinaryIO:
    with _coded(uri):
        # note: O_NONBLOCK, because opening a named pipe would otherwise wait for a writer for ever
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        mode = os.fstat(descriptor).st_mode
        if not stat_module.S_ISREG(mode):
            os.close(descriptor)
            what = "a folder" if stat_module.S_ISDIR(mode) else "a pipe, socket or device"
            raise StorageError("io_error", f"is {what}, not a file")
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
    with _coded(uri):
        if path is not None:
            yield from list_local(path, extensions)
        else:
            fs, name = filesystem(uri)
            yield from list_remote(fs, name, uri, extensions)


def stat(uri: str) -> FileInfo:
    """Size and version of one file, with its name as path. Raises StorageError."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            status = os.stat(path)
            if stat_module.S_ISDIR(status.st_mode):
                raise StorageError("io_error", "is a folder, not a file")
            name = os.path.basename(path)
            return FileInfo(uri_from_path(path), printable(name), status.st_size, local_version(status))
        fs, remote = filesystem(uri)
        info = fs.info(remote)
        if info.get("type") == "directory":
            raise StorageError("io_error", f"{public_uri(uri)} is a folder, not a file")
        return FileInfo(uri, remote_name(uri), int(info.get("size") or 0), remote_version(info))


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StorageError where access is denied."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            return os.path.exists(path)
        fs, name = filesystem(uri)
        try:
            fs.info(name)
            return True
        except FileNotFoundError:
            return False


def is_dir(uri: str) -> bool:
    """Whether the URI names a folder (for object stores: a prefix with objects below it)."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            return os.path.isdir(path)
        fs, name = filesystem(uri)
        return bool(fs.isdir(name))


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises StorageError."""
    with open_binary(uri) as file, _coded(uri):
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees the old one or the new one, never a part. Folders are made."""
    path = local_path(uri)
    with _coded(uri):
        if path is None:
            fs, name = filesystem(uri)
            make_dirs(uri.rpartition("/")[0])
            fs.pipe_file(name, data)  # one PUT: object stores show it whole
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = path + b"." + uuid.uuid4().hex[:8].encode() + b".partial"
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise


def make_dirs(uri: str) -> None:
    """Make a folder and those above it; object stores have none, so there it does nothing (never a
    bucket)."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            os.makedirs(path, exist_ok=True)
        elif scheme(uri) not in _OBJECT_STORES:
            fs, name = filesystem(uri)
            fs.makedirs(name, exist_ok=True)


def remove_tree(uri: str) -> None:
    """Remove a folder with all below it, or one file; nothing there is no error. A root or a bucket is
    refused."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            if path == b"/" or path == os.fsencode(os.path.expanduser("~")):
                raise StorageError("refused", f"{uri} is not removed as a whole")
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
            return
        fs, name = filesystem(uri)
        if not name.strip("/") or (scheme(uri) in _OBJECT_STORES and "/" not in name.strip("/")):
            raise StorageError("refused", f"{public_uri(uri)} is not removed as a whole")
        try:
            names = fs.find(name)
        except FileNotFoundError:
            return
        plain = [each for each in names if not glob.has_magic(each)]
        if plain:
            fs.rm(plain)
        for each in set(names) - set(plain):
            fs.rm_file(each)  # note: fs.rm takes "*" in an object name for a pattern
        if scheme(uri) not in _OBJECT_STORES and fs.exists(name):
            fs.rm(name, recursive=True)


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
