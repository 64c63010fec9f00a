"""Reading: files, listings and what is known of a file, whatever the store.

Names are taken literally: only the INPUT of `list_files` may be a glob, and only where nothing has exactly that name.
"""

from __future__ import annotations

import io
import os
import stat as stat_module
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from mats_core.errors import StorageError
from mats_core.storage import listing, tars
from mats_core.storage.clients import call_store, coded, open_client, remote_info, remote_type
from mats_core.storage.errors import store_code, with_retries
from mats_core.storage.listing import FileInfo, Listed
from mats_core.storage.uris import local_path, member_range, printable, public_uri, scheme, split_member, uri_from_path

_MEMBERS_AHEAD = 1 << 18  # of an archive whose headers are read: one request a member, or less for small ones
_WHOLE = 8 << 20  # of a file that is read whole: one request for most
_HEADER_BLOCK = 65536  # note: fsspec's default block of up to 52 MB would read that much for every header
CHANGED = "was changed since it was listed; scan again"
"""What is said of a file that is not the one listed."""
_MOST_AHEAD = 8 << 20
_BLOCKS_HELD = 3  # the one at the start, where headers are, and the last two, of which one may be the file's end


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
        fs, name = open_client(uri)
        if scheme(uri) in ("s3", "s3a"):
            return S3File(fs, name, read_ahead, listed.version if listed else "")  # type: ignore[return-value]

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
    uri: str, extensions: frozenset[str] | set[str] | None = None, skipped: Counter[str] | None = None
) -> Iterator[FileInfo]:
    """Every file that INPUT means, in a stable order: a file, a folder with all below it, a glob, or a URL
    of these.

    `extensions` (".wav", …, lower case) filters folders and open-ended globs, never a file that was named; `skipped`
    counts what it leaves out by ending.
    Linked folders outside the root are followed once, so loops end; a link to nothing is still yielded, to
    become a row with its error. Raises StorageError when the input itself does not exist or cannot be
    listed.
    """
    path = local_path(uri)
    with coded(uri):
        if path is not None:
            yield from listing.list_local(path, extensions, skipped)
        else:
            fs, name = open_client(uri)
            yield from listing.list_remote(fs, name, uri, extensions, skipped)


def list_members(
    archive: FileInfo, extensions: frozenset[str], skipped: Counter[str] | None = None
) -> Iterator[FileInfo]:
    """Files with one of the extensions inside a tar archive. Raises StorageError; see `tars.members`."""
    with open_binary(archive.uri, read_ahead=_MEMBERS_AHEAD) as file, coded(archive.uri):
        yield from tars.members(file, archive, extensions, skipped)


def stat(uri: str) -> FileInfo:
    """Size and version of one file, with its name as path. Raises StorageError."""
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
        info = call_store(uri, lambda fs, name: remote_info(fs, name, scheme(uri)))
        if info.get("type") == "directory":
            raise StorageError("io_error", f"{public_uri(uri)} is a folder, not a file")
        return FileInfo(uri, listing.remote_name(uri), int(info.get("size") or 0), listing.remote_version(info))


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises StorageError where access is denied."""
    return _type(uri) is not None


def is_dir(uri: str) -> bool:
    """Whether the URI names a folder (for object stores: a prefix with objects below it)."""
    return _type(uri) == "directory"


def _type(uri: str) -> str | None:
    path = local_path(uri)
    with coded(uri):
        if path is None:
            return remote_type(uri)
        return "directory" if os.path.isdir(path) else "file" if os.path.exists(path) else None


def read_bytes(uri: str) -> bytes:
    """The whole file. Raises StorageError."""
    if local_path(uri) is None and scheme(uri) not in ("s3", "s3a") and not scheme(uri).startswith("tar+"):
        with coded(uri):
            # note: one request; between two of them the file may be written anew, as a lease is
            return bytes(call_store(uri, lambda fs, name: fs.cat_file(name)))
    with open_binary(uri, read_ahead=_WHOLE) as file, coded(uri):
        return file.read()


class RangedFile(io.RawIOBase):
    """A file of `size` bytes to read. A subclass sets `size` and gives the bytes, by `_bytes(at, count)`."""

    size = 0
    _at = 0
    _file: Any = None  # what it reads from and closes, where that is a file

    def _bytes(self, at: int, count: int) -> bytes:
        """`count` bytes from `at` on, all of them below `size`; fewer where the file ends before."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self.size - self._at)
        wanted = left if count is None or count < 0 else min(count, left)
        data = self._bytes(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


class S3File(RangedFile):
    """The object `name` of an s3fs file system. A read fetches at least `read_ahead` bytes, and twice as many as before
    where it goes on after the last one. The first tells size and ETag, so no HEAD comes before it. Every answer must
    carry that ETag: an object that is written anew while it is read is an error, never a mixture of two.
    Raises what the client raises; StorageError io_error where the object changes, or where it has another ETag than
    `version`, if one is given."""

    def __init__(self, fs: Any, name: str, read_ahead: int, version: str = "") -> None:
        self._fs = fs
        self._bucket, self._key, _ = fs.split_path(name)
        if not self._key:
            raise StorageError("io_error", "is a bucket, not a file")
        self._least_ahead = self._read_ahead = read_ahead
        self._blocks: list[tuple[int, bytes]] = []
        self.etag = ""
        with_retries(lambda: self._fetch(0, read_ahead))
        if version and self.etag and version != self.etag:
            raise StorageError("io_error", CHANGED)

    def _bytes(self, at: int, count: int) -> bytes:
        data = self._piece(at, count)
        while len(data) < count:
            data += self._piece(at + len(data), count - len(data))
        return data

    def _piece(self, at: int, count: int) -> bytes:
        """Bytes from `at` on, `count` at most and one at least."""
        for first, data in self._blocks:
            if first <= at < first + len(data):
                return data[at - first : at - first + count]
        goes_on = any(at == first + len(data) for first, data in self._blocks)
        self._read_ahead = min(2 * self._read_ahead, _MOST_AHEAD) if goes_on else self._least_ahead
        stop = min(self.size, at + max(count, self._read_ahead))
        return with_retries(lambda: self._fetch(at, stop))[:count]

    def _fetch(self, first: int, stop: int) -> bytes:
        from fsspec.asyn import sync

        span = {"Range": f"bytes={first}-{stop - 1}"}
        try:
            answer = self._fs.call_s3("get_object", Bucket=self._bucket, Key=self._key, **span)
        except Exception as error:
            if first == 0 and store_code(error) in ("InvalidRange", "416"):
                return b""  # it is empty
            raise
        body = answer["Body"]
        try:
            data: bytes = sync(self._fs.loop, body.read)
        finally:
            body.close()
        if len(data) != answer.get("ContentLength", len(data)):
            raise ConnectionError("the answer was cut")
        etag = str(answer.get("ETag", "")).strip('"')
        if not self._blocks:
            self.etag = etag
            self.size = int(str(answer.get("ContentRange") or len(data)).rpartition("/")[2])
        elif etag != self.etag:
            raise StorageError("io_error", "was changed while it was read")
        self._blocks.append((first, data))
        if len(self._blocks) > _BLOCKS_HELD:
            del self._blocks[1]
        return data


class ReopenedFile(RangedFile):
    """A seekable remote file, made by `open_file`; opened again where a read fails or gives less than there is."""

    def __init__(self, file: Any, open_file: Callable[[], Any]) -> None:
        self._file = file
        self._open = open_file
        self.size = int(file.seek(0, io.SEEK_END))

    def _bytes(self, at: int, count: int) -> bytes:
        return with_retries(lambda: self._read_once(at, count))

    def _read_once(self, at: int, count: int) -> bytes:
        if self._file is None:
            self._file = self._open()
        try:
            self._file.seek(at)
            data: bytes = self._file.read(count)
            if len(data) < count:
                raise ConnectionError("the answer was cut")
            return data
        except BaseException:
            self._file = None  # note: what the client keeps of a failed read may be half an answer
            raise


class Slice(RangedFile):
    """`size` bytes from `first` on of a seekable file, as a file; fewer where that file ends before."""

    def __init__(self, file: BinaryIO, first: int, size: int) -> None:
        self._file, self._first = file, first
        self.size = max(0, min(size, file.seek(0, io.SEEK_END) - first))

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(self._first + at)
        return self._file.read(count)
