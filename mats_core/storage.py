"""The only module that knows file systems: local paths, and through fsspec s3://, gs://, az://, http(s)://,
memory:// …

A URI is text. A local file is its absolute path as it stands; a local name that is not UTF-8 becomes
``file://`` + percent-encoding, so that every URI can be written to Parquet and JSON. Names are taken
literally: only the INPUT of `list_files` may be a glob, and only where nothing has exactly that name.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat as stat_module
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote_from_bytes

from mats_core.errors import SettingsError
from mats_core.listing import (
    FileInfo,
    Listed,
    list_local,
    list_remote,
    local_version,
    remote_info,
    remote_name,
    remote_version,
)
from mats_core.s3_file import CHANGED, S3File
from mats_core.steady import SteadyFile, steady
from mats_core.store_errors import StorageError, error_from, is_passing, is_vague, store_code
from mats_core.stores import OBJECT_STORES, READ_ONLY, is_known_scheme, open_store
from mats_core.tar import Slice, archive_version, members
from mats_core.uris import (
    is_file_url,
    local_path,
    member_range,
    printable,
    public_uri,
    scheme,
    split_member,
    uri_from_path,
)

__all__ = [
    "FileInfo",
    "Listed",
    "StorageError",
    "abort_uploads",
    "arrow",
    "create_bytes",
    "error_from",
    "exists",
    "filesystem",
    "is_dir",
    "is_known_scheme",
    "join",
    "list_files",
    "list_members",
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
    "write_from",
]

Result = TypeVar("Result")

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


@contextmanager
def _coded(uri: str) -> Iterator[None]:
    try:
        yield
    except (StorageError, SettingsError, MemoryError):
        raise
    except Exception as error:  # note: fsspec back ends raise the exceptions of their own client libraries
        raise error_from(_explained(error, uri), uri) from None


def _explained(error: Exception, uri: str) -> Exception:
    """The error, or what the store says of its cause where it was asked by HEAD: such an answer has no text."""
    if scheme(uri) not in ("s3", "s3a") or not is_vague(error):
        return error
    try:
        fs, name = open_store(uri)
        bucket, key, _ = fs.split_path(name)
        if not key:
            fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        else:
            fs.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
    except Exception as told:
        return error if is_vague(told) or is_passing(told) else told
    return error


def _at(uri: str, action: Callable[[Any, str], Result]) -> Result:
    """`action` of (file system, path in it), tried again where its error may pass by itself."""
    fs, name = open_store(uri)
    return steady(lambda: action(fs, name))


def _info(uri: str) -> dict[str, Any]:
    return _at(uri, lambda fs, name: remote_info(fs, name, scheme(uri)))


def filesystem(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a remote URI; see stores.py for its settings. Raises StorageError."""
    with _coded(uri):
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
    with _coded(uri):
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
    with _coded(uri):
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
    with _coded(uri):
        if path is not None:
            yield from list_local(path, extensions)
        else:
            fs, name = open_store(uri)
            yield from list_remote(fs, name, uri, extensions)


def list_members(archive: FileInfo, extensions: frozenset[str]) -> Iterator[FileInfo]:
    """Files with one of the extensions inside a tar archive. Raises StorageError; see tar.py."""
    with open_binary(archive.uri, read_ahead=_MEMBERS_AHEAD) as file, _coded(archive.uri):
        yield from members(file, archive, extensions)


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
        if scheme(uri).startswith("tar+"):
            archive, place = _member(uri)
            return FileInfo(uri, remote_name(uri), member_range(place)[1], f"{stat(archive).version}-{place[1:]}")
        info = _info(uri)
        if info.get("type") == "directory":
            raise StorageError("io_error", f"{public_uri(uri)} is a folder, not a file")
        return FileInfo(uri, remote_name(uri), int(info.get("size") or 0), remote_version(info))


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StorageError where access is denied."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            return os.path.exists(path)
        try:
            _info(uri)
            return True
        except FileNotFoundError as error:
            if store_code(error) == "NoSuchBucket":
                raise
            return False


def is_dir(uri: str) -> bool:
    """Whether the URI names a folder (for object stores: a prefix with objects below it)."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            return os.path.isdir(path)
        try:
            return bool(_info(uri)["type"] == "directory")
        except FileNotFoundError as error:
            if store_code(error) == "NoSuchBucket":
                raise
            return False


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises StorageError."""
    if local_path(uri) is None and scheme(uri) not in ("s3", "s3a") and not scheme(uri).startswith("tar+"):
        with _coded(uri):
            # note: one request; between two of them the file may be written anew, as a lease is
            return bytes(_at(uri, lambda fs, name: fs.cat_file(name)))
    with open_binary(uri, read_ahead=_WHOLE) as file, _coded(uri):
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees the old one or the new one, never a part. Folders are made."""
    path = local_path(uri)
    with _coded(uri):
        if path is None:
            _check_writable(uri)
            make_dirs(uri.rpartition("/")[0])
            _at(uri, lambda fs, name: fs.pipe_file(name, data))  # one PUT: object stores show it whole
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


def write_from(uri: str, file: BinaryIO) -> None:
    """Write what a file holds, from its start, to a store. An object store shows it when it is whole, and nothing of it
    where that fails."""
    with _coded(uri):
        _check_writable(uri)
        fs, name = open_store(uri)
        file.seek(0)
        out = fs.open(name, "wb")
        try:
            while block := file.read(_WHOLE):
                out.write(block)
        except BaseException:
            # note: closed as usual, what is there so far would stand for the whole
            with suppress(Exception):
                out.discard()
            out.closed = True
            raise
        out.close()


def abort_uploads(uri: str) -> int:
    """Throw away the uploads to S3 below a folder that were begun and never ended, as by a writer that was killed: they
    are in no listing and are paid for. Returns how many. Raises StorageError, as where listing them is not allowed.
    """
    if scheme(uri) not in ("s3", "s3a"):
        return 0
    count = 0
    more: dict[str, str] = {}
    with _coded(uri):
        fs, name = open_store(uri)
        bucket, key, _ = fs.split_path(name.rstrip("/"))
        while True:
            page = steady(partial(fs.call_s3, "list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/", **more))
            for each in page.get("Uploads", ()):
                steady(
                    partial(
                        fs.call_s3, "abort_multipart_upload", Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]
                    )
                )
                count += 1
            if not page.get("IsTruncated"):
                return count
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def create_bytes(uri: str, data: bytes) -> bool:
    """Write a whole small file where there is none; False where there is one already, which stays as it is.

    One of several who try at once succeeds: on local disks, and on stores that know conditional writes (S3, Google). On
    others the file is looked for first, so the later of two that start together overwrites the earlier.
    """
    path = local_path(uri)
    with _coded(uri):
        if path is None:
            return _create_remote(uri, data)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = path + b"." + uuid.uuid4().hex[:8].encode() + b".partial"
        try:
            with open(partial, "wb") as file:
                file.write(data)
            os.link(partial, path)  # note: unlike a rename it never replaces; unlike open("x") it shows the whole file
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_here(path, data)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def _create_here(path: bytes, data: bytes) -> bool:
    """For file systems without links (FAT, some network mounts)."""
    try:
        with open(path, "xb") as file:
            file.write(data)
        return True
    except FileExistsError:
        return False


def _create_remote(uri: str, data: bytes) -> bool:
    _check_writable(uri)
    make_dirs(uri.rpartition("/")[0])
    fs, name = open_store(uri)
    try:
        steady(lambda: fs.pipe_file(name, data, mode="create"))
        return True
    except Exception as error:
        if isinstance(error, FileExistsError) or store_code(error) in _TAKEN:
            # note: an answer that was lost on the way makes a second try, which meets the first: the content tells
            return bool(_at(uri, lambda fs, name: fs.cat_file(name)) == data)
        if not isinstance(error, (TypeError, NotImplementedError)) and store_code(error) not in _NO_CONDITIONS:
            raise
    if exists(uri):
        return False
    write_bytes(uri, data)
    return True


_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
_NO_CONDITIONS = ("NotImplemented", "501", "InvalidRequest")
"""What a store says that speaks S3 and knows no conditional writes."""


def make_dirs(uri: str) -> None:
    """Make a folder and those above it; object stores have none, so there it does nothing (never a
    bucket)."""
    path = local_path(uri)
    with _coded(uri):
        if path is not None:
            os.makedirs(path, exist_ok=True)
        elif scheme(uri) not in OBJECT_STORES:
            _check_writable(uri)
            _at(uri, lambda fs, name: fs.makedirs(name, exist_ok=True))


def _check_writable(uri: str) -> None:
    if scheme(uri) in READ_ONLY or scheme(uri).startswith("tar+"):
        raise StorageError("refused", f"{scheme(uri)}:// is read-only; write to a folder or an object store")


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
        fs, name = open_store(uri)
        if not name.strip("/") or (scheme(uri) in OBJECT_STORES and "/" not in name.strip("/")):
            raise StorageError("refused", f"{public_uri(uri)} is not removed as a whole")
        try:
            names = steady(lambda: fs.find(name))
        except FileNotFoundError:
            return
        plain = [each for each in names if not glob.has_magic(each)]
        if plain:
            steady(lambda: fs.rm(plain))
        for each in set(names) - set(plain):
            steady(lambda each=each: fs.rm_file(each))  # type: ignore[misc]  # note: fs.rm takes "*" for a pattern
        if scheme(uri) not in OBJECT_STORES and fs.exists(name):
            steady(lambda: fs.rm(name, recursive=True))


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
