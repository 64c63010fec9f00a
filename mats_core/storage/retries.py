"""Patience with stores: what passes by itself (busy, broken connection, cut answer) is tried again."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mats_core.storage.errors import is_passing
from mats_core.storage.ranged import RangedFile

TRIES = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

Result = TypeVar("Result")


def steady(action: Callable[[], Result]) -> Result:
    """What `action` returns; called again, after ever longer pauses, while its error may pass by itself."""
    for attempt in range(TRIES):
        try:
            return action()
        except Exception as error:  # note: every client library has its own
            if attempt + 1 == TRIES or not is_passing(error):
                raise
            pause(attempt)
    raise AssertionError("unreachable")


def pause(attempt: int) -> None:
    """Wait before another try: twice as long each time, and never at the same moment as all the others."""
    time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))


class SteadyFile(RangedFile):
    """A seekable remote file, made by `open_it`; opened again where a read fails or gives less than there is."""

    def __init__(self, file: Any, open_it: Callable[[], Any]) -> None:
        self._file: Any = file
        self._open_it = open_it
        self.size = int(file.seek(0, io.SEEK_END))

    def _bytes(self, at: int, count: int) -> bytes:
        return steady(lambda: self._try(at, count))

    def _try(self, at: int, count: int) -> bytes:
        if self._file is None:
            self._file = self._open_it()
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
