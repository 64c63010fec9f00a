"""Seekable files that are read by position: an object of S3, a file of any other store; `tar.Slice` is a third.

An S3 object is read by ranged GETs. The first tells its size and ETag, so no HEAD comes before it. Every answer must
carry the ETag of the first: an object that is written anew while it is read is an error, never a mixture of two.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from mats_core.errors import StorageError
from mats_core.storage.errors import store_code, with_retries

CHANGED = "was changed since it was listed; scan again"
"""What is said of a file that is not the one listed."""
_MOST_AHEAD = 8 << 20
_BLOCKS_HELD = 3  # the one at the start, where headers are, and the last two, of which one may be the file's end


class RangedFile(io.RawIOBase):
    """A file of `size` bytes to read. A subclass sets `size` and gives the bytes, by `_bytes(at, count)`."""

    size = 0
    _at = 0

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


class S3File(RangedFile):
    """The object `name` of an s3fs file system. A read fetches at least `read_ahead` bytes, and twice as many as before
    where it goes on after the last one.

    Raises what the client raises; StorageError io_error where the object changes, or where it has another ETag than
    `version`, if one is given.
    """

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
        pieces: list[bytes] = []
        while count:
            piece = self._piece(at, count)
            at += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
        self._file: Any = file
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

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()
