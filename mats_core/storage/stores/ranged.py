"""Seekable files over ranges of bytes: objects in S3, files that are opened anew where a read fails, parts of files."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from mats_core.errors import StorageError
from mats_core.storage.errors import DamagedAnswer, store_code, with_retries

CHANGED = "was changed since it was listed; scan again"
"""What is said of a file that is not the one listed."""
_MOST_AHEAD = 8 << 20
_BLOCKS_HELD = 3  # the one at the start, where headers are, and the last two, of which one may be the file's end

_EXPRESS = "--x-s3"  # how Amazon's directory buckets end; their ETags are drawn


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
    carry that ETag: an object that is written anew while it is read is an error, never a mixture of two. Where all of
    it was fetched in order and the ETag is its MD5, the bytes must have that, unless not `checked`.
    Raises what the client raises; DamagedAnswer; StorageError io_error where the object changes, or where it has
    another ETag than `version`, if one is given."""

    def __init__(self, fs: Any, name: str, read_ahead: int, version: str = "", checked: bool = True) -> None:
        self._fs = fs
        self._bucket, self._key, _ = fs.split_path(name)
        if not self._key:
            raise StorageError("io_error", "is a bucket, not a file")
        self._least_ahead = self._read_ahead = read_ahead
        self._blocks: list[tuple[int, bytes]] = []
        self.etag = ""
        self._checked = checked
        self._digest: _Digest | None = None
        with_retries(lambda: self._fetch(0, read_ahead))
        if version and self.etag and version != self.etag:
            raise StorageError("io_error", CHANGED)

    def ask_checksum(self) -> None:
        """Before anything is read: ask for the checksum stored with the object, where the ETag is none."""
        if not self._checked or self._digest is not None or not self.size:
            return
        asked = {"Bucket": self._bucket, "Key": self._key, "ChecksumMode": "ENABLED"}
        told = with_retries(lambda: self._fs.call_s3("head_object", **asked))
        digest = _stored_digest(told) if str(told.get("ETag", "")).strip('"') == self.etag else None
        if digest is not None:
            self._digest = digest
            for first, data in self._blocks:
                self._digest = self._checked_digest(first, data)

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
        size = int(str(answer.get("ContentRange") or len(data)).rpartition("/")[2])
        if not answer.get("ContentRange"):
            data = data[first:stop]  # a store that knows no ranges
        etag = str(answer.get("ETag", "")).strip('"')
        if not self._blocks:
            self.etag, self.size = etag, size
            self._digest = _etag_digest(answer) if self._checked and not self._bucket.endswith(_EXPRESS) else None
        elif etag != self.etag:
            raise StorageError("io_error", "was changed while it was read")
        self._digest = self._checked_digest(first, data)
        self._blocks.append((first, data))
        if len(self._blocks) > _BLOCKS_HELD:
            del self._blocks[1]
        return data

    def _checked_digest(self, first: int, data: bytes) -> _Digest | None:
        """The digest with these bytes, if they go on where it has come to. DamagedAnswer where it is whole and
        another than the store tells."""
        if self._digest is None or first != self._digest.length:
            return self._digest
        digest = self._digest.and_then(data)
        if digest.length == self.size and not digest.fits():
            raise DamagedAnswer
        return digest


class _Digest:
    """A running hash, and what it is to be in the end, in hex."""

    def __init__(self, name: str, expected: str) -> None:
        self.length, self._expected = 0, expected
        self._hash = _Crc(name) if name.startswith("crc") else hashlib.new(name, usedforsecurity=False)

    def and_then(self, data: bytes) -> _Digest:
        """The digest of what it has and `data`; itself it stays as it is."""
        new = _Digest.__new__(_Digest)
        new.length, new._expected, new._hash = self.length + len(data), self._expected, self._hash.copy()
        new._hash.update(data)
        return new

    def fits(self) -> bool:
        return self._hash.hexdigest() == self._expected


class _Crc:
    """A CRC that S3 knows (crc32, crc32c, crc64nvme), in hashlib's manner."""

    def __init__(self, name: str, value: int = 0) -> None:
        self._name, self._value = name, value

    def copy(self) -> _Crc:
        return _Crc(self._name, self._value)

    def update(self, data: bytes) -> None:
        if self._name == "crc32":
            self._value = zlib.crc32(data, self._value)
            return
        from awscrt import checksums  # only objects whose ETag says nothing need it

        self._value = getattr(checksums, self._name)(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{16 if self._name == 'crc64nvme' else 8}x}"


def _etag_digest(answer: dict[str, Any]) -> _Digest | None:
    """The MD5 that an ETag is, unless the object came in parts or lies encrypted under a key of the user's."""
    etag = str(answer.get("ETag", "")).strip('"')
    keyed = str(answer.get("ServerSideEncryption") or "").startswith("aws:kms") or answer.get("SSECustomerAlgorithm")
    return None if keyed or not re.fullmatch("[0-9a-f]{32}", etag) else _Digest("md5", etag)


def _stored_digest(told: dict[str, Any]) -> _Digest | None:
    """The checksum of the whole object that was stored with it, if there is one: not one of its parts' checksums."""
    for name in ("sha256", "sha1", "crc64nvme", "crc32c", "crc32"):
        value = str(told.get(f"Checksum{name.upper()}") or "")
        if value and "-" not in value and told.get("ChecksumType") != "COMPOSITE":
            return _Digest(name, base64.b64decode(value).hex())
    return None


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
