"""A memory with further captions: what was in it stays as it was, row for row, and so does the noise of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from mats_core.memory.santa import SantaMemory
from mats_core.storage.uris import Uri


def extend_memory(uri: Uri, embeddings: Any, captions: Sequence[str], source: str) -> SantaMemory:
    """The memory at `uri` with rows added behind its own: embeddings [N, D] (normalised here) and their captions.

    Each new row joins the cluster of its nearest centroid; centroids and stored number type stay. Captions that the
    memory has already are left out. Raises SettingsError for a memory that is not whole, or of other dimensions.
    """
    import pyarrow as pa

    memory = SantaMemory.load(uri, mmap=False)
    rows = np.asarray(embeddings, np.float32)  # [N, D]
    if rows.ndim != 2 or rows.shape != (len(captions), memory.dim):
        problem = f"embeddings of shape {list(rows.shape)} for {len(captions)} captions"
        raise SettingsError("embeddings", problem, f"give one of {memory.dim} numbers to each caption")
    every = np.arange(memory.count)
    old = memory.captions(every)
    first = {text: at for at, text in reversed([*enumerate(captions)])}
    new = sorted(first[text] for text in first.keys() - set(old))
    rows = rows[new] / np.maximum(np.linalg.norm(rows[new], axis=1, keepdims=True), 1e-12)
    memory.index.make_direct_map(False)  # FAISS adds no rows under given numbers beside it
    faiss_index.fill(memory.index, rows, memory.count)
    texts = [*old, *(captions[at] for at in new)]
    sources = [*memory.captions(every, "source"), *[source] * len(new)]
    table = pa.table({"caption": pa.array(texts, pa.string()), "source": pa.array(sources, pa.string())})
    return SantaMemory(memory.index, table, memory.encoder_fingerprint, "", memory.storage)
