"""Choices that a seed and a name decide, and nothing else: the same in every process and in every order of the work."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A row of choices that follows from `name` alone."""

    __slots__ = ("_left", "_name")

    def __init__(self, name: str) -> None:
        self._name = name.encode("utf-8", "surrogatepass")
        self._fill()

    def _fill(self) -> None:
        self._name = blake2b(self._name, digest_size=64).digest()
        self._left = int.from_bytes(self._name, "little")

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1, each as likely."""
        if self._left < 1 << 64:  # too few bits are left for an even choice
            self._fill()
        self._left, drawn = divmod(self._left, n)
        return drawn

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """`items` in an order of their own."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]
