"""Seekable files that are read by position: a remote object, a slice of an archive."""

from __future__ import annotations

import io
from typing import Any


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
