"""URIs that hold a secret (a presigned query, a password): kept in memory, for the decoders, and nowhere else.

The work list, the answers, ids and logs hold the public form. The driver keeps the whole ones by
`entry_id`; in a run they move to a small actor on the driver's node, which the decoders ask for the rows of
a shard. Ray keeps such small arguments and answers in memory: its object store, which may spill to disk,
never sees them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

_PIECE = 32
"""URIs sent at once: below the 100 kB up to which Ray sends arguments and answers along with a call."""


class PrivateUris:
    """entry_id → URI. A presigned query is mostly the same from row to row, so each is deflated against the
    first: a million take some 200 MB."""

    def __init__(self) -> None:
        self._first = b""
        self._packed: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def add(self, entry_id: int, uri: str) -> None:
        """Keep the URI of an entry."""
        raw = uri.encode("utf-8", "surrogatepass")
        self._first = self._first or raw
        packer = zlib.compressobj(zdict=self._first)
        self._packed[entry_id] = packer.compress(raw) + packer.flush()

    def add_all(self, uris: dict[int, str]) -> None:
        """Keep the URIs of several entries."""
        for entry_id, uri in uris.items():
            self.add(entry_id, uri)

    def find(self, entry_ids: list[int]) -> dict[int, str]:
        """Those of these entries that have one."""
        found = {}
        for entry_id in self._packed.keys() & set(entry_ids):
            raw = zlib.decompressobj(zdict=self._first).decompress(self._packed[entry_id])
            found[entry_id] = raw.decode("utf-8", "surrogatepass")
        return found

    def pieces(self) -> list[list[int]]:
        """All entry ids, a piece at a time."""
        ids = list(self._packed)
        return [ids[at : at + _PIECE] for at in range(0, len(ids), _PIECE)]


FindUris = Callable[[list[int]], dict[int, str]]


def share(uris: PrivateUris) -> FindUris | None:
    """What a decoding actor asks for private URIs; None where no entry has one. Ray must be running."""
    if not len(uris):
        return None
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(PrivateUris).remote()
    for piece in uris.pieces():
        ray.get(actor.add_all.remote(uris.find(piece)))
    return partial(_find_in, actor)


def _find_in(actor: Any, entry_ids: list[int]) -> dict[int, str]:
    """`find` of the actor, from wherever in the cluster."""
    import ray

    found: dict[int, str] = {}
    for at in range(0, len(entry_ids), _PIECE):
        found.update(ray.get(actor.find.remote(entry_ids[at : at + _PIECE])))
    return found
