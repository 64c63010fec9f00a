"""An S3 object as a seekable file of ranged GETs. The first GET tells its size and ETag, so no HEAD comes before it.

Every answer must carry the ETag of the first: an object that is written anew while it is read is an error, never a
mixture of two.
"""

from __future__ import annotations

from typing import Any

from mats_core.storage.errors import StorageError, store_code
from mats_core.storage.ranged import RangedFile
from mats_core.storage.retries import steady

_MOST_AHEAD = 8 << 20
_KEPT = 3  # blocks: the one at the start, where headers are, and the last two, of which one may be the file's end


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
        self._least = self._ahead = read_ahead
        self._blocks: list[tuple[int, bytes]] = []
        self.etag = ""
        steady(lambda: self._fetch(0, read_ahead))
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
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if goes_on else self._least
        stop = min(self.size, at + max(count, self._ahead))
        return steady(lambda: self._fetch(at, stop))[:count]

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
        if len(self._blocks) > _KEPT:
            del self._blocks[1]
        return data


CHANGED = "was changed since it was listed; scan again"
"""What is said of a file that is not the one listed."""
