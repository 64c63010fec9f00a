"""A JSON text walked piece by piece: lists and objects larger than memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

MOST_RECORD = 16 << 20
"""Characters one value may have; what is not whole by then is broken."""

PIECE = 1 << 20
"""Characters taken at once."""

_SPACES = " \t\r\n"


class JsonStream:
    """Walks a JSON text that is read piece by piece. fail: told the line and why, where it cannot go on; it raises."""

    def __init__(self, text: io.TextIOWrapper, fail: Callable[[int, str], None]) -> None:
        self._text, self._fail = text, fail
        self._buffer, self._at, self._line, self._over = "", 0, 1, False
        self._decoder = json.JSONDecoder()

    def fail(self, why: str) -> None:
        """Give up: after a syntax error nobody can say where the next value begins."""
        self._fail(self._line, why)

    def _more(self) -> bool:
        piece = self._text.read(PIECE)
        self._over = not piece
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return not self._over

    def peek(self) -> str:
        """The next character that is no space, or "" at the end."""
        while True:
            while self._at < len(self._buffer):
                letter = self._buffer[self._at]
                if letter not in _SPACES:
                    return letter
                self._line += letter == "\n"
                self._at += 1
            if not self._more():
                return ""

    def take(self, letter: str) -> None:
        """Go past `letter`, which must come next."""
        found = self.peek()
        if found != letter:
            self.fail(f"expected {letter!r}, found {found!r}" if found else f"it ends where {letter!r} should come")
        self._at += 1

    def value(self) -> Any:
        """The next whole value."""
        if not self.peek():
            self.fail("it ends too soon")
        while True:
            try:
                found, end = self._decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                if len(self._buffer) - self._at > MOST_RECORD or not self._more():
                    self.fail(str(error).split(": line", 1)[0])
                continue
            if end == len(self._buffer) and not self._over and self._more():
                continue  # note: a number may go on in the next piece
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            return found

    def parts(self, brackets: str) -> Iterator[None]:
        """Stands where each part between two brackets begins, one after the other; whoever asks goes past the part."""
        opening, closing = brackets[0], brackets[1]
        self.take(opening)
        while self.peek() != closing:
            yield
            if self.peek() != closing:
                self.take(",")
                if self.peek() == closing:
                    self.fail("a comma before the end of the list")
        self.take(closing)

    def end(self) -> None:
        """There must be nothing more."""
        left = self.peek()
        if left:
            self.fail(f"{left!r} after the end of the list or object")

    def items(self) -> Iterator[tuple[int, Any]]:
        """The elements of the list that comes next, each with the line it begins in."""
        for _ in self.parts("[]"):
            line = self._line
            yield line, self.value()

    def names(self) -> Iterator[str]:
        """The names in the object that comes next; whoever asks goes past the value of each."""
        for _ in self.parts("{}"):
            key = self.value()
            if not isinstance(key, str):
                self.fail(f"expected a name, found {key!r}")
            self.take(":")
            yield key

    def members(self) -> Iterator[tuple[str, Any]]:
        """The names and values of the object that comes next."""
        for key in self.names():
            yield key, self.value()

    def items_under(self, name: str) -> Iterator[tuple[int, Any]]:
        """The elements of the list `name` of the object that comes next."""
        found = False
        for key in self.names():
            if key == name and found:
                self.fail(f'its object has a second "{name}"')
            if key == name and self.peek() == "[":
                found = True
                yield from self.items()
            else:
                self.value()
        if not found:
            self.fail(f'its object has no list "{name}"')
