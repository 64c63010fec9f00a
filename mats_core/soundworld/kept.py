"""Files of a build that are kept: whole, or not there at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write, which becomes ``path`` when the block ends without an error."""
    draft = path.with_name(f".{path.name}.partial")
    yield draft
    draft.replace(path)


def keep_text(path: Path, text: str) -> None:
    """Write a text file."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def keep_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file."""
    with whole(path) as draft, draft.open("wb") as file:
        np.save(file, array)
