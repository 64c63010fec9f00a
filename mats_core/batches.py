"""Many items through something that may fail: one item never costs the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def in_batches(
    items: Sequence[Item],
    size: int,
    run: Callable[[Any], Iterable[Any]],
    prepare: Callable[[Sequence[Item]], Any] = lambda batch: batch,
) -> list[Any]:
    """What `run` makes of the items, `size` at a time; where it fails, of halves, down to each alone, an exception in
    its place.

    prepare: what is done to a batch before `run` gets it, in a thread, while `run` is at the batch before.
    """
    found: list[Any] = []
    batches = [items[at : at + size] for at in range(0, len(items), size)] if items else []
    with ThreadPoolExecutor(1) as thread:
        following = [thread.submit(prepare, batch) for batch in batches[:1]]
        for at, batch in enumerate(batches):
            prepared = following.pop()
            following.extend(thread.submit(prepare, each) for each in batches[at + 1 : at + 2])
            try:
                found.extend(run(prepared.result()))
                continue
            except Exception as error:
                if len(batch) == 1:
                    found.append(error)
                    continue
            # note: not inside the handler, where the error would hold on to the memory of what failed
            found.extend(in_batches(batch, math.ceil(len(batch) / 2), run, prepare))
    return found


def raised(found: Sequence[Item | Exception]) -> list[Item]:
    """The results, or the first exception among them raised."""
    for each in found:
        if isinstance(each, Exception):
            raise each
    return [each for each in found if not isinstance(each, Exception)]
